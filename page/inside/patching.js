// Activation patching between two prompts: how much of the difference between their answers one activation restores.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, chip, number, visible, spoken } = GPT.draw;
  const { report } = GPT.inside;
  const LABEL = 10; // letters of a token above a column
  const START = report.versus ? report.prompt.findIndex(({ id }, t) => id !== report.versus[t].id) : 0;
  const SMALL = 0.5; // a difference of two logits that hardly matters

  GPT.picture("patching", {
    mount(element) {
      const { heads, places } = report.patching;
      this.grids = places.map((place) => this.grid(place));
      const names = places.map(({ name }) => name);
      const choice = GPT.parts.choice("Activation", names, (index) => this.show(index));
      choice.show(0);
      this.map = GPT.parts.headMap("Restored by each head", {
        paint: (cell, layer, head) => GPT.parts.heat(cell, heads[layer][head], 1),
        describe: (layer, head) => `restores ${signed(heads[layer][head])}`,
      });
      const controls = html("div", { class: "controls" }, choice.element);
      const cut = `${START === 1 ? "The first token is" : `The first ${START} tokens are`} left out: nothing differs there.`;
      const note = START > 0 && html("p", { class: "note" }, cut);
      const atPositions = html("div", {}, controls, ...this.grids.map((grid) => grid.element), note);
      const ofHeads = html("div", {}, html("h4", {}, "The output of one head, at all positions"), this.map.element);
      element.append(html("p", { class: "readout" }, ends()), html("div", { class: "two" }, atPositions, ofHeads));
      this.show(0);
    },

    grid({ name, rows, values: all }) {
      const values = all.map((row) => row.slice(START));
      const prompt = report.prompt.slice(START);
      const grid = GPT.parts.grid(`${name}: restored, by block and position`, {
        corner: "",
        rows,
        columns: prompt.map((piece, t) => column(piece, report.versus[START + t])),
        cell: (row, t) => ({
          content: Math.abs(values[row][t]) >= 0.05 ? number(100 * values[row][t], 0) : "",
          strength: Math.abs(values[row][t]),
          isMinus: values[row][t] < 0,
          words: `${rows[row]}, ${spoken(prompt[t])}: ${signed(values[row][t])}`,
        }),
        describe: (row, t) => [`${name}, ${rows[row]}, at `, chip(prompt[t]), `: ${signed(values[row][t])} restored`],
        onchoose: () => {},
      });
      const flat = values.flat();
      const most = flat.indexOf(Math.max(...flat));
      grid.move(Math.floor(most / prompt.length), most % prompt.length);
      return grid;
    },

    show(index) {
      this.grids.forEach((grid, i) => grid.element.toggleAttribute("hidden", i !== index));
      this.grids[index].reveal();
    },

    update(state) {
      this.map.show(state);
      this.grids.forEach((grid) => grid.reveal());
    },
  });

  const signed = (value) => `${number(100 * value, 1)}%`;

  /** A token of the first prompt, and that of the second where they differ. */
  function column(piece, other) {
    const token = (shown, kind) => html("span", { class: `token ${kind}` }, visible(shown, LABEL));
    return piece.id === other.id ? token(piece, "") : [token(piece, "is-first"), token(other, "is-second")];
  }

  /** The two ends of the scale. */
  function ends() {
    const { clean, corrupt, target, versus } = report.patching;
    const small = Math.abs(clean - corrupt) < SMALL ? " They are close: percentages of so small a difference say little." : "";
    const values = `${number(clean)} after the first prompt (100%) and ${number(corrupt)} after the second (0%).${small}`;
    return ["The logit of ", chip(target), " minus that of ", chip(versus), ` is ${values}`];
  }
})();
