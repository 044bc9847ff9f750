// The page's own model with fewer bits for each weight: the bars of the next token, the loss of the text, and one row of
// weights before and after rounding.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, number, percent, chip, visible, row, best } = GPT.draw;
  const STEPS = [2, 3, 4, 5, 6, 8];

  GPT.diagram("bits", {
    mount(element, model) {
      Object.assign(this, { model, bits: 4, result: null });
      const text = (bits) => `${bits} bits`;
      this.slider = GPT.charts.slider("bits for each weight", { steps: STEPS, text }, (bits) => {
        this.bits = bits;
        this.compute();
      });
      this.slider.show(this.bits);
      this.answers = GPT.compared.answers("The next token, as stored and rounded", ["as stored", "rounded"]);
      this.strips = GPT.parts.strips("The chosen token's row of the token table, as stored and rounded");
      this.table = html("table", { class: "later-table" });
      this.sentence = html("p", { class: "later-sentence" });
      element.append(
        html("div", { class: "controls" }, this.slider.element),
        html("div", { class: "apart" }, this.answers.element, html("div", {}, this.table)),
        html("h4", {}, "The weights of one row"),
        this.strips.element,
        this.sentence,
      );
    },

    update(state) {
      const shown = [state.tokens.join(), state.token].join(":");
      Object.assign(this, { state: { ...state }, clean: GPT.ablation.logProbs(state.trace.logits(state.token)) });
      if (shown === this.shown) return;
      this.shown = shown;
      this.losses = GPT.ablation.losses(state.trace);
      this.result = null;
      this.compute();
    },

    compute() {
      const { tokens, token } = this.state;
      this.show();
      GPT.jobs.ask("rounding.run", { tokens: Array.from(tokens), bits: this.bits, at: token }, (found) => {
        if (found) this.result = found;
        this.show();
      });
    },

    show() {
      const { tokens, pieces, token } = this.state;
      const { bits, model, result } = this;
      this.answers.show([this.clean, result && result.logProbs], best(this.clean, 1));
      const whole = GPT.maths.withShape(row(model.tokenTable, tokens[token]).slice(), [1, model.config.d_model]);
      const rounded = GPT.rounding.rounded(whole, bits);
      const rows = [{ label: "as stored", values: whole }, { label: `${bits} bits`, values: rounded }];
      this.strips.show(rows, (c) => `Weight ${c + 1}: ${number(whole[c], 3)} becomes ${number(rounded[c], 3)}`);
      this.tabulate();
      const most = GPT.rounding.largest(bits);
      this.sentence.replaceChildren(
        `With ${bits} bits each weight is one of ${2 * most + 1} numbers: −${most} to ${most}, times the scale of its row; with 32 bits the weights would take ${number(GPT.rounding.bytes(model, 32) / 1e6)} MB. The strips show the row of `,
        chip(pieces[token]), ". ", ...this.verdict());
    },

    verdict() {
      if (!this.result) return [];
      const [first] = best(this.result.logProbs, 1);
      const [from] = best(this.clean, 1);
      const [before, after] = [this.clean, this.result.logProbs].map((run) => percent(Math.exp(run[from])));
      const same = first === from ? " and stays the likeliest" : `, and “${visible(GPT.app.piece(first), 14)}” is the likeliest now`;
      return [chip(GPT.app.piece(from)), ` goes from ${before} to ${after}${same}.`];
    },

    /** Sizes, and losses in nats per token and bits per byte. */
    tabulate() {
      const { model, bits, result } = this;
      const { pieces } = this.state;
      const size = (each) => `${number(GPT.rounding.bytes(model, each) / 1e6)} MB`;
      const bytes = pieces.slice(1).reduce((sum, piece) => sum + piece.bytes.length, 0);
      const sum = (losses) => losses.reduce((all, loss) => all + loss, 0);
      const hasLoss = result && bytes > 0;
      const nats = (losses) => (hasLoss ? number(sum(losses) / losses.length, 3) : "–");
      const perByte = (losses) => (hasLoss ? number(sum(losses) / Math.LN2 / bytes, 3) : "–");
      const [before, after] = [this.losses, result && result.losses];
      const lines = [
        ["size of the weights", size(8), size(bits)],
        ["loss of your text, nats per token", nats(before), nats(after)],
        ["the same in bits per byte", perByte(before), perByte(after)],
      ];
      this.table.replaceChildren(
        html("thead", {}, html("tr", {}, html("td", {}), html("th", { scope: "col" }, "as stored"), html("th", { scope: "col" }, `${bits} bits`))),
        html("tbody", {}, lines.map(([name, ...values]) => html("tr", {}, html("th", { scope: "row" }, name), values.map((each) => html("td", { class: "numbers" }, each))))));
    },
  });
})();
