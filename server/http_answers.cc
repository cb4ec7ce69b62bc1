#include "server/http_answers.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/access/users.h"
#include "server/calls/user_states.h"
#include "server/observe/html.h"
#include "server/observe/scrape.h"
#include "server/observe/status_page.h"
#include "server/observe/status_style.h"

namespace qk {
namespace {

using Answer = MetricsListener::Answer;
using MaySee = std::function<bool(const std::string& name)>;

constexpr char kActivations[] = "/metrics/activations";
constexpr char kLive[] = "/live";

Answer StatusAnswer(const HttpSources& sources, const User* viewer,
                    const MaySee& may_see, bool live) {
  StatusPage page = ReadStatus(sources.status, viewer, may_see);
  page.live = live;
  for (const Document& document : *sources.documents) {
    page.documents.emplace_back(document.name);
  }
  return {200, RenderStatusPage(page), kHtmlContentType};
}

}  // namespace

Answer AnswerHttp(const HttpSources& sources,
                  const MetricsListener::Request& request) {
  const std::string& path = request.path;
  if (path == "/style.css") return {200, kStatusStyle, kCssContentType};
  for (const Document& document : *sources.documents) {
    if (path == absl::StrCat("/docs/", document.name)) {
      return {200, document.text};
    }
  }
  const bool status = path == "/" || path == kLive;
  if (!status && path != "/metrics" && path != kActivations) {
    return {404, "see / and /metrics and /metrics/activations\n"};
  }
  const Identity& identity = *sources.identity;
  MaySee may_see = [&identity](const std::string& model) {
    return identity.EverybodyMayUse(model);
  };
  std::shared_ptr<const User> user;
  if (!request.authorization.empty()) {
    auto found = identity.Authenticate(
        {{request.authorization.begin(), request.authorization.end()},
         std::nullopt});
    if (!found.ok()) {
      return {401, absl::StrCat(found.status().message(), "\n")};
    }
    user = *std::move(found);
    may_see = [&user](const std::string& model) {
      return MayUseModel(*user, model);
    };
  }
  if (status) {
    return StatusAnswer(sources, user.get(), may_see, path == kLive);
  }
  const ScrapeView view = {may_see, [&](const std::string& alias) {
                             return MaySeeUser(identity, user.get(), alias);
                           }};
  return {
      200,
      RenderMetrics(path == kActivations ? sources.activations->Collect(may_see)
                                         : sources.metrics->Collect(),
                    view),
      kMetricsContentType};
}

}  // namespace qk
