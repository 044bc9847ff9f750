// The curves of the film: losses, and a habit of the strongest head, of the chosen one and of an even one. The cursor of
// each is the slider of the film.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, number, count } = GPT.draw;
  const { recorded, set, listeners, measured } = GPT.film;
  const { headName } = GPT.inside;
  const START = 0.5; // where the logarithmic axis shows step 0
  const at = (step) => Math.max(START, step);

  GPT.film.charts = () => {
    const { inside, frames, train } = recorded;
    if (!inside.length) return document.getElementById("charts").closest("figure").remove();
    const last = Math.max(1, frames[frames.length - 1].step);
    const powers = Array.from({ length: Math.floor(Math.log2(last)) + 1 }, (_, i) => 2 ** i).filter((_, i) => i % 2 === 0);
    const x = { label: "step", from: START, to: last, isLog: true, ticks: [START, ...powers], text: (v) => (v < 1 ? "0" : count(v)) };
    const stops = frames.map(({ step }) => at(step));
    const losses = GPT.charts.chart("Losses by step", (frame) => set({ frame }));
    const scores = GPT.charts.chart("A habit by step", (frame) => set({ frame }));
    const names = Object.keys(inside[0].scores);
    let habit = names.includes("induction") ? "induction" : names[0];
    const choice = GPT.parts.choice("Habit", names, (index) => { habit = names[index]; set({}); });
    document.getElementById("charts").append(losses.element,
      html("div", {}, html("div", { class: "habit-choice" }, choice.element), scores.element));

    const shown = (points) => points.filter(([, y]) => y !== null).map(([step, y]) => [at(step), y]);
    const curve = (value) => shown(inside.map((found) => [found.step, value(found)]));
    const first = curve(({ first: loss }) => loss);
    const second = curve(({ second: loss }) => loss);
    const top = Math.max(1, ...[...first, ...second, ...shown(train)].map(([, y]) => y));

    /** The strongest head of a measurement: [score, layer, head]. */
    const strongest = (found) => found.scores[habit].flatMap((row, layer) => row.map((score, head) => [score ?? 0, layer, head]))
      .reduce((most, one) => (one[0] > most[0] ? one : most));
    const describe = (words) => (frame) => {
      const found = measured(frame);
      return `Step ${count(frames[frame].step)}: ${found ? words(found) : "not measured"}.`;
    };
    const lossWords = (found) => `first half ${number(found.first ?? NaN)}, second half ${number(found.second ?? NaN)} nats`;

    listeners.push((state) => {
      const { layer, head, frame } = state;
      choice.show(names.indexOf(habit));
      losses.show({
        x, stops, at: frame, describe: describe(lossWords),
        y: { label: "loss, nats per token", from: 0, to: Math.ceil(top), text: (v) => number(v, 0) },
        lines: [
          { label: "random tokens, second half", style: "main", points: second },
          { label: "random tokens, first half", style: "other", points: first },
          { label: "training", style: "third", points: shown(train) },
        ],
      });
      const words = (found) => {
        const [score, l, h] = strongest(found);
        return `${habit} ${number(score)} in head ${headName(l, h)}, ${number(found.scores[habit][layer][head] ?? 0)} in head ` +
          `${headName(layer, head)}, evenly ${number(found.even[habit] ?? 0)}`;
      };
      scores.show({
        x, stops, at: frame, describe: describe(words),
        y: { label: `${habit}: attention to its tokens`, from: 0, to: 1, text: (v) => number(v, 1) },
        lines: [
          { label: "strongest head", style: "main", points: curve((found) => strongest(found)[0]) },
          { label: `head ${headName(layer, head)}`, style: "other", points: curve((found) => found.scores[habit][layer][head]) },
          { label: "an even head", style: "third", points: curve((found) => found.even[habit]) },
        ],
      });
    });
    return undefined;
  };
})();
