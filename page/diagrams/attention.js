// The attention weights of one head as a matrix, and the whole computation of the selected cell.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, chip, number, percent, row, paint, palette, largest } = GPT.draw;

  GPT.diagram("attention", {
    mount(element, model) {
      this.model = model;
      this.choices = [GPT.parts.layerChoice(model), GPT.parts.headChoice(model)];
      this.matrix = GPT.parts.matrix("Attention: queries in rows, keys in columns", {
        isFitted: true,
        onchoose: (token, key) => {
          GPT.app.set({ token, key });
          requestAnimationFrame(() => reveal(this.answer));
        },
        onpeek: (token, key) => this.explain(token, key),
      });
      this.answer = html("p", { class: "answer" });
      this.comparing = GPT.parts.strips("Query times key, number by number");
      this.summing = GPT.parts.strips("The value and its part of the weighted sum, number by number");
      this.steps = html("dl", { class: "steps" });
      this.heading = html("h4", { class: "pair" });
      this.maps = ["query", "key", "value"].map((term) => ({
        name: term === "query" ? "queries" : `${term}s`,
        term,
        canvas: html("canvas", { class: "map", role: "img" }),
        mark: html("div", { class: "map-line" }),
      }));
      const play = html("button", { type: "button", class: "action", onclick: () => this.comparing.play() }, "▶\ufe0e Add up");
      element.append(
        html("div", { class: "controls" }, this.choices.map(({ element: one }) => one)),
        html("p", { class: "note" }, everywhere(model.config)),
        html(
          "div",
          { class: "attention" },
          html("div", {}, this.matrix.element, this.answer),
          html("div", { class: "attention-detail" }, this.heading, this.comparing.element, play, this.steps, this.summing.element),
          html(
            "div",
            { class: "qkv" },
            this.maps.map(({ name, term, canvas, mark }) =>
              html(
                "div",
                { "data-term": term },
                html("span", { class: term[0] }, name),
                html("div", { class: "map-box" }, canvas, mark),
              ),
            ),
          ),
        ),
      );
    },

    update(state) {
      const { pieces, token, layer, head, trace, key } = state;
      this.state = state;
      for (const choice of this.choices) choice.show(state);
      const { weights } = trace.layers[layer];
      const weight = (t, s) => weights[(head * trace.T + t) * trace.T + s];
      const strongest = GPT.draw.best(row(weights, head * trace.T + token, trace.T), 1)[0];
      this.matrix.show({ pieces, weight, token, key: key ?? strongest, drawn: weights, head });
      this.drawMaps();
      this.explain(token, key ?? strongest);
      return [
        `In layer ${layer + 1}, head ${head + 1}, `,
        chip(pieces[token]),
        " attends most to ",
        strongest === token ? "itself" : chip(pieces[strongest]),
        `, with a weight of ${percent(weight(token, strongest))}.`,
      ];
    },

    /** All queries, keys and values of the head: one row for each token, one column for each of their D numbers. */
    drawMaps() {
      const { layer, head, trace } = this.state;
      const { q, k, v } = trace.layers[layer];
      const size = trace.T * this.model.headDim;
      const kv = Math.floor((head * this.model.config.kv_heads) / this.model.config.num_heads);
      [row(q, head, size), row(k, kv, size), row(v, kv, size)].forEach((values, i) => {
        const { name, term, canvas } = this.maps[i];
        paint(canvas, values, this.model.headDim, largest(values), palette(term));
        canvas.setAttribute("aria-label", `The ${name} of all ${trace.T} tokens, ${this.model.headDim} numbers each`);
      });
    },

    /** The computation of one cell: dot product, scale, mask, softmax; and its part of the weighted sum. */
    explain(token, key) {
      const { pieces, layer, head, trace } = this.state;
      const { config, headDim: D, slopes } = this.model;
      const { q, k, v, scores, weights, gathered } = trace.layers[layer];
      const kv = Math.floor((head * config.kv_heads) / config.num_heads);
      const [query, keyed, value] = [
        row(q, head * trace.T + token, D),
        row(k, kv * trace.T + key, D),
        row(v, kv * trace.T + key, D),
      ];
      [token, key, key].forEach((line, i) =>
        Object.assign(this.maps[i].mark.style, { top: `${(100 * line) / trace.T}%`, height: `${100 / trace.T}%` }),
      );
      const products = query.map((x, d) => x * keyed[d]);
      const term = (name) => html("span", { class: name[0], "data-term": name }, name);
      this.heading.replaceChildren(term("query"), " of ", chip(pieces[token]), " · ", term("key"), " of ", chip(pieces[key]));
      let sum = 0;
      const sums = products.map((x) => (sum += x)); // of the first 1, 2, 3, ... products
      this.comparing.show(
        [
          { label: "query", values: query, colour: "query" },
          { label: "key", values: keyed, colour: "key" },
          { label: "product", values: products, most: largest(products) },
          { label: "sum so far", sums: products },
        ],
        (d) =>
          `Number ${d + 1} of ${D}: ${number(query[d])} × ${number(keyed[d])} = ${number(products[d])}. Sum so far: ${number(sums[d])}.`,
      );
      const at = (head * trace.T + token) * trace.T;
      const seen = Array.from(
        scores.subarray(at, at + token + 1),
        (score, s) => score - (slopes ? slopes[head] * (token - s) : 0),
      );
      this.showSteps({ token, key, score: scores[at + key], seen, weight: weights[at + key] });
      const [weight, all] = [weights[at + key], row(gathered, token).subarray(head * D, (head + 1) * D)];
      const part = value.map((x) => weight * x);
      this.summing.show(
        [
          { label: "value", values: value, colour: "value" },
          { label: `× ${percent(weight)}`, values: part, colour: "value" },
          { label: "weighted sum", values: all, colour: "value" },
        ],
        (d) =>
          `Number ${d + 1} of ${D}: ${number(value[d])} × ${percent(weight)} = ${number(part[d])}; the sum over all tokens is ${number(all[d])}.`,
      );
    },

    showSteps({ token, key, score, seen, weight }) {
      const { headDim: D, slopes } = this.model;
      const root = Math.sqrt(D);
      const isSeen = key <= token;
      const lines = [
        ["dot", "sum of the products", number(score * root)],
        ["score", `divided by √${D} = ${number(root)}`, number(score)],
      ];
      if (slopes && isSeen)
        lines.push([
          "bias",
          `minus distance ${token - key} × slope ${slopes[this.state.head].toPrecision(2)}`,
          number(seen[key]),
        ]);
      lines.push([
        "mask",
        isSeen ? "mask: not later, so it stays" : "mask: later in the text, so it is hidden",
        isSeen ? number(seen[key]) : "−∞",
      ]);
      const sum = seen.reduce((all, x) => all + Math.exp(x), 0);
      lines.push([
        "exp",
        `e to the power of ${isSeen ? number(seen[key]) : "−∞"}`,
        isSeen ? power(Math.exp(seen[key])) : "0",
      ]);
      lines.push(["weight", ["divided by the sum over the row, ", power(sum)], percent(weight)]);
      const hidden = ["The mask hides it from ", chip(this.state.pieces[token]), ", which comes earlier."];
      const sums = [
        `(${number(score * root)} ÷ ${number(root)}${slopes ? " − bias" : ""} = ${number(seen[key] ?? 0)}; e to that power is `,
        power(Math.exp(seen[key] ?? 0)),
        ", of ",
        power(sum),
        " in this row)",
      ];
      this.answer.replaceChildren(
        chip(this.state.pieces[token]),
        " attends to ",
        key === token ? "itself" : chip(this.state.pieces[key]),
        ": ",
        html("b", {}, percent(weight)),
        html("small", {}, isSeen ? ["Dot product of query and key: ", number(score * root), " ", sums] : hidden),
      );
      this.steps.replaceChildren(
        ...lines.map(([step, words, value]) =>
          html("div", {}, html("dt", {}, words), html("dd", { "data-step": step }, value)),
        ),
      );
    },
  });

  /** What the choices of a layer and a head mean, before their chapters. */
  function everywhere({ num_layers: L, num_heads: H }) {
    const layers = L > 1 ? `in every layer, ${L} of them one after the other` : "in one layer";
    const heads = H > 1 ? `in ${H} heads at once` : "in one head";
    return `In this model all this happens ${layers}, and in each layer ${heads}. The next chapters explain both.`;
  }

  /** Scrolls just so far that an element is in view, if it is displayed. */
  function reveal(element) {
    const box = element.getBoundingClientRect();
    if (box.height && box.bottom > innerHeight) scrollBy({ top: box.bottom - innerHeight + 8 });
  }

  /** A number above 0 of any size: 3.16, or 2.1 × 10^7. */
  function power(value) {
    if (value >= 0.01 && value < 100_000) return number(value, value < 1 ? 3 : 2);
    const [digits, exponent] = value.toExponential(1).split("e");
    return html("span", {}, `${digits} × 10`, html("sup", {}, String(Number(exponent)).replace("-", "−")));
  }
})();
