#include "server/observe/status_page.h"

#include <algorithm>
#include <initializer_list>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/common/text.h"
#include "server/observe/html.h"
#include "server/observe/status_activations.h"

namespace qk {
namespace {

using Health = StatusPage::Health;
using Viewer = StatusPage::Viewer;

struct HealthText {
  const char* word;
  const char* style;  // the class
  const char* sentence;
};

HealthText TextOf(Health health) {
  switch (health) {
    case Health::kStarting:
      return {"Starting", "warn", "Models are still being loaded."};
    case Health::kServing:
      return {"Serving", "good", "All configured models are ready."};
    case Health::kDraining:
      return {"Draining", "warn", "Calls in progress finish; no new ones."};
  }
  return {"", "", ""};
}

void Fact(absl::string_view name, absl::string_view value, std::string* out) {
  absl::StrAppend(out, "<div><dt>", name, "</dt><dd>", HtmlText(value),
                  "</dd></div>\n");
}

// A cell of a table that becomes a list on a narrow screen. `value` is HTML.
void Cell(absl::string_view column, absl::string_view value, std::string* out) {
  absl::StrAppend(out, "<td data-label=\"", column, "\">", value, "</td>");
}

void Head(std::initializer_list<absl::string_view> columns, std::string* out) {
  out->append("<table><thead><tr>");
  for (absl::string_view column : columns) {
    absl::StrAppend(out, "<th scope=\"col\">", column, "</th>");
  }
  out->append("</tr></thead><tbody>\n");
}

// A bar from 0 to 1, with the text beside it.
std::string Bar(double part, absl::string_view text) {
  const double width = 100 * std::clamp(part, 0.0, 1.0);
  const char* style = part >= 0.9 ? "high" : "part";
  return absl::StrFormat(
      "<svg class=\"bar\" viewBox=\"0 0 100 8\" width=\"100\" height=\"8\" "
      "preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect class=\"none\" "
      "width=\"100\" height=\"8\"/><rect class=\"%s\" width=\"%.1f\" "
      "height=\"8\"/></svg> %s",
      style, width, text);
}

void Others(size_t all, size_t shown, absl::string_view what,
            std::string* out) {
  if (all <= shown) return;
  absl::StrAppend(out, "<p class=\"note\">and ",
                  WithCommas(static_cast<int64_t>(all - shown)), " other ",
                  what, "</p>\n");
}

void AppendHeader(const StatusPage& page, std::string* out) {
  const HealthText health = TextOf(page.health);
  absl::StrAppend(
      out,
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light "
      "dark\">\n");
  if (page.live) {
    out->append("<meta http-equiv=\"refresh\" content=\"10\">\n");
  }
  absl::StrAppend(
      out, "<title>", health.word,
      " - qkscope</title>\n<link rel=\"stylesheet\" href=\"/style.css\">\n"
      "</head>\n<body>\n<header>\n<h1>qkscope</h1>\n<p class=\"state ",
      health.style, "\">", health.word, "</p>\n<p class=\"grow\">",
      health.sentence, "</p>\n<p>",
      absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", page.made, absl::UTCTimeZone()),
      page.live ? " <a href=\"/\">stop reloading</a>"
                : " <a href=\"/live\">reload every 10 s</a>",
      "</p>\n</header>\n<main>\n");
}

void AppendServer(const StatusPage& page, std::string* out) {
  out->append("<section>\n<h2>Server</h2>\n<dl class=\"facts\">\n");
  Fact("Version", page.version, out);
  Fact("Up for", ShortDuration(page.uptime), out);
  Fact("Backend", page.backend.name, out);
  Fact("Device", page.backend.device, out);
  if (page.backend.threads > 0) {
    Fact("Threads", absl::StrCat(page.backend.threads), out);
  }
  const DeviceReading& device = page.device;
  if (device.memory_used_bytes.has_value() &&
      device.memory_total_bytes.has_value()) {
    Fact("Device memory",
         absl::StrCat(HumanBytes(*device.memory_used_bytes), " of ",
                      HumanBytes(*device.memory_total_bytes)),
         out);
  }
  if (device.utilization.has_value()) {
    Fact("Device in use", Percent(*device.utilization), out);
  }
  if (device.temperature_celsius.has_value()) {
    Fact("Temperature",
         absl::StrFormat("%.0f \xC2\xB0"
                         "C",
                         *device.temperature_celsius),
         out);
  }
  if (device.power_watts.has_value()) {
    Fact("Power", absl::StrFormat("%.0f W", *device.power_watts), out);
  }
  out->append("</dl>\n</section>\n");
}

void AppendQueue(const StatusPage& page, std::string* out) {
  const StatusPage::Queue& queue = page.queue;
  out->append("<section>\n<h2>Queue</h2>\n<dl class=\"facts\">\n");
  Fact("Running", WithCommas(queue.running), out);
  Fact("Waiting", WithCommas(queue.waiting), out);
  Fact("Oldest waits",
       queue.oldest.has_value() ? ShortDuration(*queue.oldest) : "nobody waits",
       out);
  const double part =
      queue.limit > 0 ? static_cast<double>(queue.waiting) / queue.limit : 0;
  absl::StrAppend(out, "<div><dt>Places taken</dt><dd>",
                  Bar(part, absl::StrCat(WithCommas(queue.waiting), " of ",
                                         WithCommas(queue.limit))),
                  "</dd></div>\n</dl>\n</section>\n");
}

void AppendModel(const StatusPage::Model& model, std::string* out) {
  const bool loaded = model.host_bytes + model.device_bytes > 0;
  out->append("<tr><th scope=\"row\">");
  absl::StrAppend(out, HtmlText(model.name), "</th>");
  const char* style = model.state == "ready"    ? "good"
                      : model.state == "failed" ? "bad"
                                                : "warn";
  std::string state = absl::StrCat("<span class=\"state ", style, "\">",
                                   HtmlText(model.state), "</span>");
  if (!model.failure.empty()) {
    absl::StrAppend(&state, " ", HtmlText(model.failure));
  }
  Cell("State", state, out);
  Cell("Architecture", HtmlText(model.architecture), out);
  Cell("Layers", absl::StrCat(model.layers), out);
  Cell("Parameters", WithCommas(model.parameters), out);
  Cell("Weights", HtmlText(model.weights_dtype), out);
  Cell("Computed in", HtmlText(model.compute), out);
  const std::string none = "\xE2\x80\x93";
  Cell("Host memory", loaded ? HumanBytes(model.host_bytes) : none, out);
  Cell("Device memory", loaded ? HumanBytes(model.device_bytes) : none, out);
  Cell("Loaded in",
       loaded ? ShortDuration(absl::Seconds(model.load_seconds)) : none, out);
  out->append("</tr>\n");
}

void AppendModels(const StatusPage& page, std::string* out) {
  out->append("<section class=\"wide\">\n<h2>Models</h2>\n");
  if (page.models.empty()) {
    out->append(page.viewer == Viewer::kNobody
                    ? "<p class=\"note\">None that everybody may use.</p>\n"
                    : "<p class=\"note\">None.</p>\n");
  } else {
    Head({"Model", "State", "Architecture", "Layers", "Parameters", "Weights",
          "Computed in", "Host memory", "Device memory", "Loaded in"},
         out);
    const size_t shown = std::min(page.models.size(), kStatusModels);
    for (size_t i = 0; i < shown; ++i) AppendModel(page.models[i], out);
    out->append("</tbody></table>\n");
    Others(page.models.size(), shown, "models", out);
  }
  out->append("</section>\n");
}

// What is used of a budget; "no limit" if there is none.
std::string BudgetBar(double used, double most, absl::string_view used_text,
                      absl::string_view most_text) {
  if (most <= 0) return std::string(used_text);
  return Bar(used / most, absl::StrCat(used_text, " of ", most_text));
}

void AppendUser(const StatusPage::UserRow& row, std::string* out) {
  const UserState& user = row.state;
  const UserBudget& budget = user.budget;
  absl::StrAppend(out, "<tr><th scope=\"row\">", HtmlText(user.alias), "</th>");
  Cell("Share now", Bar(user.share, Percent(user.share)), out);
  Cell("Weight", absl::StrFormat("%g", user.weight), out);
  Cell("Running", absl::StrCat(user.in_flight - user.queued), out);
  Cell("Waiting", absl::StrCat(user.queued), out);
  const double used_ms = user.window.device_seconds * 1e3;
  const auto milliseconds = [](double ms) {
    return ShortDuration(absl::Milliseconds(ms));
  };
  Cell(
      "Device time in window",
      BudgetBar(used_ms, static_cast<double>(budget.device_ms_per_window),
                milliseconds(used_ms),
                milliseconds(static_cast<double>(budget.device_ms_per_window))),
      out);
  Cell("Bytes in window",
       BudgetBar(static_cast<double>(user.window.bytes),
                 static_cast<double>(budget.bytes_per_window),
                 HumanBytes(user.window.bytes),
                 HumanBytes(budget.bytes_per_window)),
       out);
  Cell("Window", ShortDuration(absl::Seconds(budget.window_s)), out);
  Cell("Kept results",
       absl::StrCat(WithCommas(row.kept_results), ", ",
                    HumanBytes(row.kept_bytes)),
       out);
  out->append("</tr>\n");
}

void AppendUsers(const StatusPage& page, std::string* out) {
  out->append("<section class=\"wide\">\n<h2>Users</h2>\n");
  switch (page.viewer) {
    case Viewer::kNobody:
      out->append(
          "<p class=\"note\">With a user's token (Authorization: Bearer), this "
          "page shows that user; with an operator's, all users.</p>\n"
          "</section>\n");
      return;
    case Viewer::kUser:
      absl::StrAppend(out, "<p class=\"note\">You are ", HtmlText(page.alias),
                      ". Only an operator sees others.</p>\n");
      break;
    case Viewer::kEverybody:
    case Viewer::kOperator:
      break;
  }
  std::vector<const StatusPage::UserRow*> users;
  users.reserve(page.users.size());
  for (const auto& user : page.users) users.push_back(&user);
  const auto busier = [](const auto* a, const auto* b) {
    return std::tuple(-a->state.in_flight, -a->state.window.device_seconds,
                      a->state.alias) <
           std::tuple(-b->state.in_flight, -b->state.window.device_seconds,
                      b->state.alias);
  };
  const size_t shown = std::min(users.size(), kStatusUsers);
  std::partial_sort(users.begin(),
                    users.begin() + static_cast<ptrdiff_t>(shown), users.end(),
                    busier);
  if (users.empty()) {
    out->append("<p class=\"note\">Nobody has called yet.</p>\n");
  } else {
    Head({"User", "Share now", "Weight", "Running", "Waiting",
          "Device time in window", "Bytes in window", "Window", "Kept results"},
         out);
    for (size_t i = 0; i < shown; ++i) AppendUser(*users[i], out);
    out->append("</tbody></table>\n");
    Others(users.size(), shown, "users, who are less busy", out);
  }
  out->append("</section>\n");
}

void AppendKept(const StatusPage& page, std::string* out) {
  out->append("<section>\n<h2>Kept results</h2>\n");
  if (!page.kept.has_value()) {
    out->append("<p class=\"note\">This server keeps none.</p>\n");
  } else {
    const StatusPage::Kept& kept = *page.kept;
    const auto part = [](int64_t used, int64_t most) {
      return static_cast<double>(used) /
             static_cast<double>(std::max<int64_t>(1, most));
    };
    absl::StrAppend(out, "<dl class=\"facts\">\n<div><dt>Results</dt><dd>",
                    Bar(part(kept.results, kept.most_results),
                        absl::StrCat(WithCommas(kept.results), " of ",
                                     WithCommas(kept.most_results))),
                    "</dd></div>\n<div><dt>Bytes</dt><dd>",
                    Bar(part(kept.bytes, kept.most_bytes),
                        absl::StrCat(HumanBytes(kept.bytes), " of ",
                                     HumanBytes(kept.most_bytes))),
                    "</dd></div>\n");
    Fact("Kept for", ShortDuration(kept.ttl), out);
    out->append("</dl>\n");
  }
  out->append("</section>\n");
}

void AppendLinks(const StatusPage& page, std::string* out) {
  out->append(
      "<section>\n<h2>More</h2>\n<ul>\n<li><a href=\"/metrics\">Metrics</a> "
      "for "
      "Prometheus</li>\n");
  for (const std::string& name : page.documents) {
    const std::string text = HtmlText(name);
    absl::StrAppend(out, "<li><a href=\"/docs/", text, "\">", text,
                    "</a></li>\n");
  }
  out->append("</ul>\n</section>\n");
}

}  // namespace

std::string RenderStatusPage(const StatusPage& page) {
  std::string out;
  AppendHeader(page, &out);
  out.append("<div class=\"row\">\n");
  AppendServer(page, &out);
  AppendQueue(page, &out);
  AppendKept(page, &out);
  AppendLinks(page, &out);
  out.append("</div>\n");
  AppendModels(page, &out);
  AppendUsers(page, &out);
  const size_t shown = std::min(page.activations.size(), kStatusHeatMaps);
  for (size_t i = 0; i < shown; ++i) {
    AppendActivations(page.activations[i], &out);
  }
  Others(page.activations.size(), shown, "models with recent prompts", &out);
  out.append("</main>\n</body>\n</html>\n");
  return out;
}

}  // namespace qk
