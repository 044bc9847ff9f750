// The logit lens: the most likely next token after each block, at each position.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, chip, percent, count, visible, spoken } = GPT.draw;
  const { report, set } = GPT.inside;
  const LABEL = 12; // letters of a token in a cell

  GPT.picture("lens", {
    mount(element) {
      const { stages, cells } = report.lens;
      const final = cells[cells.length - 1].map(([best]) => best.piece.id);
      this.grid = GPT.parts.grid("The most likely next token after each block, at each position", {
        corner: "after",
        rows: stages,
        columns: report.prompt.map((piece) => html("span", { class: "token" }, visible(piece, LABEL))),
        cell: (stage, token) => this.cell(cells[stage][token][0], stage, token, final[token]),
        describe: (stage, token) => this.describe(stage, token),
        onchoose: (stage, token) => set({ token, key: null }),
      });
      this.grid.move(stages.length - 1, report.prompt.length - 1);
      element.append(this.grid.element);
    },

    cell({ piece, probability }, stage, token, final) {
      return {
        content: html("span", { class: "token" }, visible(piece, LABEL)),
        strength: probability,
        isMarked: piece.id === final,
        words: `${report.lens.stages[stage]}, after ${spoken(report.prompt[token])}: ${spoken(piece)}, ${percent(probability)}`,
      };
    },

    describe(stage, token) {
      const { stages, cells, target } = report.lens;
      const isLast = token === report.prompt.length - 1;
      const { rank, probability } = target[stage];
      return [
        `After ${stages[stage]}, following `,
        chip(report.prompt[token]),
        ": ",
        cells[stage][token].flatMap((found, i) => [i ? ", " : "", chip(found.piece), ` ${percent(found.probability)}`]),
        ". ",
        isLast ? [chip(report.attribution.target), ` has rank ${count(rank)}, with ${percent(probability)}.`] : "",
      ];
    },

    update({ token }) {
      this.grid.move(this.grid.at()[0], token);
    },
  });
})();
