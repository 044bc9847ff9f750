// Follow one number: the norm before attention.

var GPT = GPT || {};
(() => {
  "use strict";
  const { stops, write, symbol, ours, bracket } = GPT.follow;

  /** The rows of a norm: [label, values] after each of its operations. */
  function normRows({ isRms, x, mean, deviation, weight, bias, result }) {
    const centred = Array.from(x, (value) => value - mean);
    const rows = [["x", x]];
    if (!isRms) rows.push([`− mean ${write(mean)}`, centred]);
    rows.push([`÷ ${isRms ? "size" : "deviation"} ${write(deviation)}`, centred.map((value) => value / deviation)]);
    rows.push([bias ? "× weight + bias" : "× weight", result]);
    return { rows, weight };
  }

  stops.push({
    name: "norm",
    title: (story) => (story.norm1.isRms ? "RMSNorm" : "The layer norm"),
    place: "norm",
    value: (story) => write(story.norm1.result[story.c]),
    words: ({ norm1, c, C }) => [
      norm1.isRms
        ? `Attention reads the vector after a norm: each number is divided by the size of all ${C}, the root of their mean square. `
        : `Attention reads the vector after a norm: the mean of all ${C} numbers is subtracted, and the results are divided by their standard deviation. `,
      `Then each is multiplied by its own learned weight${norm1.bias ? ", and its bias is added" : ""}. Ours becomes `,
      ours(norm1.result[c]),
      ".",
    ],
    formula: ({ norm1, c }) => {
      const { isRms, x, mean, deviation, weight, bias, result } = norm1;
      return [
        "norm(",
        symbol("x", "x"),
        "): ",
        isRms ? write(x[c]) : ["(", write(x[c]), " − ", bracket(mean), ")"],
        " / ",
        write(deviation),
        " × ",
        bracket(weight[c]),
        bias && [" + ", bracket(bias[c])],
        " = ",
        ours(result[c]),
      ];
    },
    draw(scene, { norm1, c, C }) {
      const columns = scene.window(c, C);
      const rest = C > columns.length ? "…" : null;
      scene.header(14, columns, { count: C, ours: c });
      const top = 24 + (scene.isNarrow ? 16 : 0);
      const { rows } = normRows(norm1);
      let above = null;
      rows.forEach(([label, values], i) => {
        const [y, start] = [top + i * scene.step, i ? 0.5 + (i - 1) * 1.5 : 0];
        const { cells } = scene.row(y, {
          label,
          columns,
          values,
          rest,
          ours: c,
          name: i === rows.length - 1 ? "norm" : `norm.${i}`,
          start,
          every: i ? 0.1 : 0,
          follow: true,
        });
        if (above)
          above.forEach((cell, place) =>
            scene.send(cell, cells[place].at.x, cells[place].at.y, start + 0.1 * place - 0.2, 0.4),
          );
        above = cells;
      });
    },
  });
})();
