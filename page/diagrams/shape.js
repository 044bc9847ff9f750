// The whole model as a list, in the order in which a text passes through it, with real sizes and counts.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, count, percent } = GPT.draw;

  GPT.diagram("shape", {
    mount(element, model) {
      this.model = model;
      this.total = Object.values(model.weights).reduce((sum, weight) => sum + weight.length, 0);
      this.list = html("ol", { class: "shape" });
      element.append(this.list);
    },

    update({ tokens }) {
      const { d_model: C, vocab_size: V } = this.model.config;
      const T = tokens.length;
      const parts = [
        this.item("Token ids", "tokens", `${T} numbers`, null),
        this.item("Token table", "embeddings", `a row of ${C} for each of ${count(V)} tokens`, "embeddings.token."),
        this.model.weights["embeddings.position.weight"] &&
          this.item(
            "Position table",
            "embeddings",
            `a row for each of ${this.model.config.max_seq_len} positions`,
            "embeddings.position.",
          ),
        ...this.model.layers.map((_, layer) => this.block(layer)),
        this.item("Last norm", "block", "", "final_norm."),
        this.item(
          "Output",
          "model",
          this.model.weights["head.weight"] ? "a table of its own" : "the token table again",
          this.model.weights["head.weight"] ? "head." : null,
        ),
        this.item("Probabilities", "what", `${T} × ${count(V)}, the last ${count(V)} are for the next token`, null),
      ];
      this.list.replaceChildren(...parts.filter(Boolean));
      const inBlocks = Object.entries(this.model.weights).reduce(
        (sum, [name, weight]) => sum + (name.startsWith("blocks.") ? weight.length : 0),
        0,
      );
      return (
        `Your ${count(T)} ${T === 1 ? "token passes" : "tokens pass"} through the model as ${count(T)} × ${C} numbers. ` +
        `The model has ${count(this.total)} weights, ${percent(inBlocks / this.total)} of them in its blocks.`
      );
    },

    /** The first block with its parts, the others in one line each. */
    block(layer) {
      const { num_heads: H, d_ff, d_model: C, kv_heads: K } = this.model.config;
      const name = `blocks.${layer}.`;
      if (layer) return this.item(`Block ${layer + 1}`, "block", "the same parts with other weights", name);
      const heads =
        K === H
          ? `${H} heads of width ${this.model.headDim}`
          : `${H} heads, ${K} for keys and values, of width ${this.model.headDim}`;
      return html(
        "li",
        { class: "shape-block" },
        this.line("Block 1", "block", "", name),
        html(
          "ol",
          { class: "shape" },
          this.item("Norm", "block", "", `${name}attention_norm.`),
          this.item("Attention", "attention", heads, `${name}attention.`),
          this.item("Norm", "block", "", `${name}feedforward_norm.`),
          this.item("Feed-forward", "feedforward", `${count(C)} → ${count(d_ff)} → ${count(C)}`, `${name}feedforward.`),
        ),
      );
    },

    item(...given) {
      return html("li", {}, this.line(...given));
    },

    /** A part's name, with a link to its chapter; words; and the number of weights whose names begin with `prefix`. */
    line(name, chapter, words, prefix) {
      const own = Object.entries(this.model.weights).filter(([weight]) => prefix && weight.startsWith(prefix));
      const weights = own.reduce((sum, [, weight]) => sum + weight.length, 0);
      return html(
        "div",
        { class: "shape-line" },
        html("a", { href: `#${chapter}` }, name),
        html("span", {}, words),
        html("span", { class: "numbers" }, weights ? count(weights) : ""),
        html("span", { class: "shape-bar", "aria-hidden": "true", style: `width: ${(100 * weights) / this.total}%` }),
      );
    },
  });
})();
