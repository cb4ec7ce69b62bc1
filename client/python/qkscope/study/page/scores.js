// Accuracies and tests.

function startScores() {
  const scorer = choice("scores", "scorer", "Scorer", draw);
  const model = choice("scores", "model", "Model", draw);
  scorer.offer(unique(data.scores.map(s => s.scorer)).map(s => [s, s]));
  model.offer([["", "all"], ...unique(data.scores.map(s => s.model))
    .map(m => [m, m])]);
  byId("scores").hidden = false;
  draw();

  function draw() {
    const rows = data.scores.filter(s => s.scorer === scorer.value
      && (!model.value || s.model === model.value));
    drawBars(rows);
    table("scores-table", ["model", "task", "arm", "right", "95 % (Wilson)", "",
      "no verdict", "says what is true of the world", "perplexity",
      "of the answer alone", "distinct-2", "tokens"], rows.map(s => [
      s.model, s.task, s.arm, number(`${percent(s.share)} of ${s.items}`),
      number(`${percent(s.low)} to ${percent(s.high)}`),
      s.like_guessing ? "as guessing" : "",
      number(percent(s.unread)),
      number(s.world === null ? "–" : percent(s.world)),
      number(shown(s.perplexity)), number(shown(s.perplexity_alone)),
      number(shown(s.distinct_2)), number(shown(s.tokens, 1))]));
    table("tests-table", [data.compare === "arms" ? "model" : "arm", "task",
      "first", "second", "both right", "first only", "second only", "neither",
      "p", "p (Holm)"], data.tests
      .filter(t => t.scorer === scorer.value && (data.compare !== "arms"
        || !model.value || t.model === model.value))
      .map(t => [t.model, t.task, t.first, t.second,
        ...[t.both, t.lost, t.won, t.neither].map(n => number(String(n))),
        number(pShown(t.p)), number(pShown(t.p_holm))]));
  }
}

function drawBars(rows) {
  const groups = unique(rows.map(r => `${r.model}\n${r.task}`));
  const arms = unique(rows.map(r => r.arm));
  const width = 1000, height = 300, left = 46, bottom = 52, top = 26;
  const svg = newSvg("scores-chart", width, height, "accuracy by task and arm");
  const y = share => height - bottom - share * (height - bottom - top);
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    svgElement(svg, "line", {class: "axis", x1: left, x2: width, y1: y(share),
                             y2: y(share)});
    svgElement(svg, "text", {x: left - 6, y: y(share) + 4,
      "text-anchor": "end"}, `${100 * share} %`);
  }
  const step = (width - left) / Math.max(1, groups.length);
  const bar = Math.min(46, step * 0.8 / arms.length);
  groups.forEach((group, g) => {
    const middle = left + step * (g + 0.5);
    group.split("\n").reverse().forEach((line, i) => svgElement(svg, "text",
      {x: middle, y: height - bottom + 18 + 15 * i, "text-anchor": "middle"},
      line));
    arms.forEach((arm, a) => {
      const row = rows.find(r => `${r.model}\n${r.task}` === group
                                 && r.arm === arm);
      if (!row) return;
      const x = middle + (a - arms.length / 2) * bar;
      const drawn = svgElement(svg, "rect", {class: "bar", x: x + 1,
        y: y(row.share), width: bar - 2,
        height: Math.max(0.5, y(0) - y(row.share)), fill: COLOURS[a % 8]});
      svgElement(svg, "line", {class: "range", x1: x + bar / 2, x2: x + bar / 2,
                               y1: y(row.low), y2: y(row.high)});
      hover(drawn, `${row.model}, ${row.task}\n${arm}: ${percent(row.share)} of `
        + `${row.items}\n95 %: ${percent(row.low)} to ${percent(row.high)}`);
    });
  });
  legend(svg, arms, left);
}

function legend(svg, names, left) {
  let x = left;
  names.forEach((name, i) => {
    svgElement(svg, "rect", {x, y: 4, width: 12, height: 12,
                             fill: COLOURS[i % 8]});
    svgElement(svg, "text", {x: x + 16, y: 14}, name);
    x += 34 + 7 * name.length;
  });
}
