#include "server/observe/status_style.h"

namespace qk {

// Text has a contrast of at least 4.5 with what is behind it. The colours c0 to
// c8 go from light to dark in equal steps (from dark to light on dark ground),
// so whoever sees no hues can still order them.
const char kStatusStyle[] = R"css(:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --line: #d5dae1;
  --text: #1a1f26; --soft: #515b68; --link: #0b57a4;
  --good: #0f6b3a; --good-back: #dff3e6;
  --warn: #7a4b00; --warn-back: #fdeecf;
  --bad: #a3122c; --bad-back: #fde3e6;
  --part: #2b758e; --high: #c2410c;
  --c0: #e6e9ed; --c1: #b6de2a; --c2: #66ca5d; --c3: #2daf7e; --c4: #21918d;
  --c5: #2d728e; --c6: #3b528a; --c7: #462f7b; --c8: #440457; --cx: #e6007a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1216; --card: #171b21; --line: #323a45;
    --text: #e6eaf0; --soft: #a3adba; --link: #7db8f5;
    --good: #7ddba1; --good-back: #12321f;
    --warn: #f3c566; --warn-back: #3a2b08;
    --bad: #ff9aa6; --bad-back: #43141c;
    --part: #4fa3bd; --high: #ff8c4a;
    --c0: #2b323b; --c1: #44377f; --c2: #39578b; --c3: #2b758e; --c4: #21928c;
    --c5: #2daf7e; --c6: #62c95f; --c7: #aedc30; --c8: #fae725; --cx: #ff5c9a;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.45 system-ui, "DejaVu Sans", sans-serif;
}
header, main { max-width: 1280px; margin: 0 auto; padding: 0 20px; }
header {
  display: flex; flex-wrap: wrap; align-items: center; gap: 4px 16px;
  padding-top: 16px;
}
h1 { font-size: 22px; margin: 0; }
h2 { font-size: 16px; margin: 0 0 10px; overflow-wrap: anywhere; }
p { margin: 0; }
a { color: var(--link); }
a:focus-visible, summary:focus-visible {
  outline: 2px solid var(--link); outline-offset: 2px;
}
.grow { flex: 1 1 auto; color: var(--soft); }
.note { color: var(--soft); margin: 0 0 10px; }
.state {
  display: inline-block; padding: 1px 10px; border-radius: 10px;
  font-weight: 600;
}
.good { color: var(--good); background: var(--good-back); }
.warn { color: var(--warn); background: var(--warn-back); }
.bad { color: var(--bad); background: var(--bad-back); }
.row {
  display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fit, minmax(260px, 1fr));
}
section {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 14px 16px; min-width: 0;
}
main { padding-top: 16px; padding-bottom: 32px; }
.wide { margin-top: 16px; }
.facts { margin: 0; }
.facts div { display: flex; gap: 4px 12px; padding: 2px 0; flex-wrap: wrap; }
dt { color: var(--soft); flex: 0 0 110px; }
dd { margin: 0; flex: 1 1 100px; overflow-wrap: anywhere; }
ul { margin: 0; padding-left: 18px; }
table { border-collapse: collapse; width: 100%; }
th, td {
  text-align: left; padding: 5px 12px 5px 0; vertical-align: top;
  border-top: 1px solid var(--line); overflow-wrap: break-word;
}
tbody th { overflow-wrap: anywhere; }
thead th { border-top: 0; color: var(--soft); font-weight: 400; }
td, dd { font-variant-numeric: tabular-nums; }
.numbers { width: auto; margin-top: 8px; }
.numbers th, .numbers td { padding-right: 24px; text-align: right; }
.bar { vertical-align: 1px; width: 72px; align-self: center; }
.facts .bar { display: block; width: 100%; margin: 6px 0 2px; }
.bar .part { fill: var(--part); }
.bar .high { fill: var(--high); }
.bar .none { fill: var(--line); }
.maps {
  display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fit, minmax(270px, 1fr));
}
figure { margin: 0; min-width: 0; }
figcaption { font-weight: 600; }
svg.heat { display: block; width: 100%; max-width: 440px; height: auto; }
.heat g path { fill: none; stroke-width: 1; shape-rendering: crispEdges; }
.heat .none, .legend .none { fill: var(--card); stroke: var(--line); }
.heat .none { stroke-width: 1; }
.axis { font-size: 10px; fill: var(--soft); }
.end { text-anchor: end; }
.mark { fill: var(--text); }
.ring { fill: none; stroke: var(--text); stroke-width: 1.4; }
.c0 { fill: var(--c0); stroke: var(--c0); }
.c1 { fill: var(--c1); stroke: var(--c1); }
.c2 { fill: var(--c2); stroke: var(--c2); }
.c3 { fill: var(--c3); stroke: var(--c3); }
.c4 { fill: var(--c4); stroke: var(--c4); }
.c5 { fill: var(--c5); stroke: var(--c5); }
.c6 { fill: var(--c6); stroke: var(--c6); }
.c7 { fill: var(--c7); stroke: var(--c7); }
.c8 { fill: var(--c8); stroke: var(--c8); }
.cx { fill: var(--cx); stroke: var(--cx); }
.legend {
  list-style: none; padding: 0; margin: 10px 0; display: flex;
  flex-wrap: wrap; gap: 2px 14px; color: var(--soft);
}
.legend svg { vertical-align: -2px; }
summary { cursor: pointer; color: var(--link); }
@media (max-width: 760px) {
  header, main { padding-left: 12px; padding-right: 12px; }
  table:not(.numbers) thead { display: none; }
  table:not(.numbers) tr {
    display: block; border-top: 1px solid var(--line); padding: 6px 0;
  }
  table:not(.numbers) th, table:not(.numbers) td {
    display: flex; gap: 12px; border: 0; padding: 1px 0;
  }
  table:not(.numbers) td::before {
    content: attr(data-label); flex: 0 0 130px; color: var(--soft);
  }
}
)css";

}  // namespace qk
