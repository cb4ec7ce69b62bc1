// Shows what there is.

byId("title").textContent = data.title;
byId("lead").textContent = data.lead;
byId("about").replaceChildren(...data.about.flatMap(([name, value]) =>
  [element("dt", {}, name), element("dd", {}, value)]));
if (data.scores.length) startScores();
if (data.layers.length) startValues();
if (data.answers.length) startAnswers();
