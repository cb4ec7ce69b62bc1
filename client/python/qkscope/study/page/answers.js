// The answers themselves.

function startAnswers() {
  const MOST = 200;
  const model = choice("answers", "model", "Model", draw);
  const task = choice("answers", "task", "Task", draw);
  const scorer = choice("answers", "scorer", "Scorer", draw);
  const which = choice("answers", "which", "Show", draw);
  model.offer(unique(data.answers.map(a => a.model)).map(m => [m, m]));
  task.offer(unique(data.answers.map(a => a.task)).map(t => [t, t]));
  scorer.offer(data.scorers.map(s => [s, s]));
  which.offer([["", "all items"], ["differ", "where arms differ"],
               ["scorers", "where scorers differ"]]);
  byId("answers").hidden = false;
  draw();

  function draw() {
    const at = data.scorers.indexOf(scorer.value);
    const rows = data.answers.filter(a => a.model === model.value
      && a.task === task.value && (which.value !== "differ"
        || unique(a.arms.map(arm => arm.right[at])).length > 1)
      && (which.value !== "scorers"
        || a.arms.some(arm => unique(arm.right).length > 1)));
    byId("answers-count").textContent = rows.length > MOST
      ? `${rows.length} items; the first ${MOST}` : `${rows.length} items`;
    table("answers-table", ["item", "question", "right is",
      ...Object.keys(data.arms)], rows.slice(0, MOST).map(a => [
      a.seed ? `${a.item}, seed ${a.seed}` : a.item,
      [data.questions[a.item] || "", "long"], a.answer,
      ...a.arms.map(arm => [arm.text,
                            `long ${arm.right[at] ? "right" : "wrong"}`])]));
  }
}
