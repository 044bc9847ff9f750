// Experts: many feed-forward networks, of which a router chooses a few for each token. The choice here is random.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, count, percent, chip } = GPT.draw;
  const COUNTS = [1, 2, 4, 8, 16, 32, 64, 128, 256];

  GPT.diagram("experts", {
    mount(element, model) {
      Object.assign(this, { model, n: 16, k: 2, id: 0 });
      this.n$ = GPT.charts.slider("experts in each layer", { steps: COUNTS }, (n) => { this.n = n; this.show(); });
      this.k$ = GPT.charts.slider("chosen for each token", { min: 1, max: 8 }, (k) => { this.k = k; this.show(); });
      this.n$.show(this.n);
      this.k$.show(this.k);
      this.token = html("div", { class: "experts-token" });
      this.grid = html("div", { class: "experts-grid", "aria-hidden": "true" });
      this.bars = GPT.parts.bars("Parameters in total and for each token");
      this.sentence = html("p", { class: "later-sentence" });
      element.append(html("div", { class: "controls" }, this.n$.element, this.k$.element),
        html("div", { class: "experts" }, this.token, this.grid), this.bars.element, this.sentence);
    },

    update(state) {
      this.piece = state.pieces[state.token];
      this.show();
    },

    /** The experts of a token: k different ones, always the same for a token. */
    chosen(k) {
      const random = GPT.sampling.rng(this.piece.id + 1);
      const all = Array.from({ length: this.n }, (_, i) => i);
      return new Set(Array.from({ length: k }, () => all.splice(Math.floor(random() * all.length), 1)[0]));
    },

    show() {
      const k = Math.min(this.k, this.n);
      const chosen = this.chosen(k);
      this.token.replaceChildren(chip(this.piece), html("span", { "aria-hidden": "true" }, "→ router →"));
      this.grid.replaceChildren(...Array.from({ length: this.n }, (_, i) => html("i", { class: chosen.has(i) && "is-chosen" })));
      const sizes = Object.entries(this.model.weights).map(([name, { length }]) => [name.includes(".feedforward."), length]);
      const sum = (isNetwork) => sizes.reduce((all, [is, length]) => all + (is === isNetwork ? length : 0), 0);
      const routers = this.n > 1 ? this.model.config.num_layers * this.n * this.model.config.d_model : 0;
      const [total, active] = [this.n, k].map((number) => sum(false) + routers + number * sum(true));
      this.bars.show([
        { label: "in total", fraction: 1, text: count(total) },
        { label: "for each token", fraction: active / total, text: count(active), isMarked: true },
      ]);
      this.sentence.replaceChildren(
        `If each layer of this page's model had ${this.n} feed-forward network${this.n === 1 ? "" : "s"} and each token passed through ${k}, the model would have ${count(total)} parameters, and each token would use ${count(active)}, ${percent(active / total)}.`);
    },
  });
})();
