// The size of the KV cache: heads that share keys and values make it smaller.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, count, number } = GPT.draw;
  const BYTES = 2; // for each number, in 16 bits
  const CARD = 80e9; // bytes
  const size = (bytes) => (bytes >= 1e12 ? `${number(bytes / 1e12)} TB` : bytes >= 1e9 ? `${number(bytes / 1e9, 1)} GB` : bytes >= 1e6 ? `${number(bytes / 1e6, 1)} MB` : `${number(bytes / 1e3, 1)} kB`);

  /** Keys and values of one token, in bytes. */
  const perToken = ({ layers, headWidth }, kvHeads) => layers * 2 * kvHeads * headWidth * BYTES;

  GPT.diagram("memory", {
    mount(element) {
      this.models = GPT.known.filter(({ kvHeads }) => kvHeads);
      Object.assign(this, { at: this.models.length - 1, context: 8192 });
      const names = this.models.map(({ name }) => name);
      const choice = GPT.parts.choice("Model", names, (index) => { this.at = index; this.setUp(); });
      choice.show(this.at);
      const contexts = [1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072];
      this.slider = GPT.charts.slider("tokens in the context", { steps: contexts, text: count }, (value) => { this.context = value; this.show(); });
      this.slider.show(this.context);
      this.kv = GPT.charts.slider("key/value heads", { min: 0, max: 7, text: (step) => this.inWords(step) }, (step) => { this.step = step; this.show(); });
      this.picture = html("div", { class: "memory-heads", "aria-hidden": "true" });
      this.bars = GPT.parts.bars("Size of the cache");
      this.sentence = html("p", { class: "later-sentence" });
      element.append(html("div", { class: "controls" }, choice.element, this.kv.element, this.slider.element), this.picture, this.bars.element, this.sentence);
      this.setUp();
    },

    /** The numbers of key/value heads that divide the query heads, from the fewest. */
    setUp() {
      const { heads, kvHeads } = this.models[this.at];
      this.options = Array.from({ length: heads }, (_, i) => i + 1).filter((each) => heads % each === 0);
      this.step = this.options.indexOf(kvHeads);
      this.kv.limit(0, this.options.length - 1);
      this.kv.show(this.step);
      this.show();
    },

    inWords(step) {
      const { heads } = this.models[this.at];
      const shared = this.options[step];
      return shared === heads ? `${shared}: one for each head` : shared === 1 ? "1 for all heads" : `${shared}`;
    },

    show() {
      const model = this.models[this.at];
      const shared = this.options[this.step];
      const group = model.heads / shared;
      this.picture.replaceChildren(...Array.from({ length: shared }, () =>
        html("span", { class: "memory-group" }, Array.from({ length: group }, () => html("i", { class: "is-query" })), html("i", { class: "is-key" }), html("i", { class: "is-value" }))));
      const kinds = [["all heads", model.heads], ["as set", shared], ["as built", model.kvHeads], ["one for all", 1]];
      const bytes = (kvHeads) => perToken(model, kvHeads) * this.context;
      this.bars.show(kinds.map(([label, kvHeads]) => ({ label, fraction: kvHeads / model.heads, text: size(bytes(kvHeads)), isMarked: label === "as set" })));
      const cards = bytes(shared) / CARD;
      const ofCard = cards < 1 ? `${number(100 * cards, cards < 0.1 ? 1 : 0)}% of` : `${number(cards, 1)} times`;
      this.sentence.replaceChildren(
        `${model.name} has ${model.heads} query heads in each of ${model.layers} layers. With ${shared} key/value head${shared === 1 ? "" : "s"}, one token takes ${size(perToken(model, shared))} and one text of ${count(this.context)} tokens ${size(bytes(shared))}, ${ofCard} the memory of an 80 GB card.${this.context > model.context ? ` (It was built for at most ${count(model.context)} tokens.)` : ""}`);
    },

    update() {},
  });
})();
