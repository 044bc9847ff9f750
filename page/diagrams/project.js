// A matrix times a vector, number by number: how the chosen token gets its query, key or value. Of the matrix it shows the
// rows and columns with the largest products; the other products are summed.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, chip, count, number, row, largest } = GPT.draw;
  const { slider, button } = GPT.charts;
  const TERMS = ["query", "key", "value"];
  const [ROWS, WIDE, NARROW, PHONE] = [4, 6, 3, 480]; // rows and columns that are shown; pixels
  const [PAUSE, FLIGHT] = [800, 450]; // milliseconds

  GPT.diagram("project", {
    mount(element, model) {
      Object.assign(this, { model, term: 0, at: null, timer: null, isFresh: true });
      const choice = GPT.parts.choice("Compute the", TERMS, (term) => {
        this.term = term;
        GPT.app.set({});
      });
      choice.show(0);
      const go = (to) => {
        this.stop();
        this.isFresh = false;
        this.go(to);
      };
      this.moments = slider("Step", { max: 1, text: (at) => this.name(at) }, go);
      this.back = button("‹ Back", () => go(this.at - 1));
      this.next = button("Next ›", () => {
        go(this.at + 1);
        this.fly();
      });
      this.play = button("▶\ufe0e Play", () => this.toggle());
      this.picture = html("div", { class: "product", "aria-hidden": "true" });
      this.sum = html("table", { class: "product-sum" });
      element.append(
        html("div", { class: "controls" }, choice.element),
        html("div", { class: "controls" }, html("div", { class: "buttons" }, this.back, this.play, this.next), this.moments.element),
        this.picture,
        this.sum,
      );
    },

    update({ pieces, token, layer, head, trace }) {
      this.stop();
      const { num_heads: H, kv_heads: K, d_model: C } = this.model.config;
      const [D, weights] = [this.model.headDim, this.model.layers[layer]];
      const kv = Math.floor((head * K) / H);
      const first = [head, H + kv, H + K + kv][this.term] * D; // the head's first row in the matrix of all queries, keys, values
      const vector = row(trace.layers[layer].normed1, token); // (C)
      const columns = Math.min(C, this.picture.clientWidth < PHONE ? NARROW : WIDE);
      const all = Array.from({ length: D }, (_, i) => this.line(first, i, weights, vector));
      const lines = largestFirst(all, ({ sum }) => Math.abs(sum), ROWS).sort((one, other) => one.index - other.index);
      const numbers = Array.from({ length: C }, (_, c) => c);
      const shown = largestFirst(numbers, (c) => lines.reduce((sum, { products }) => sum + Math.abs(products[c]), 0), columns);
      this.shown = shown.sort((one, other) => one - other);
      this.lines = lines.map((line) => ({ ...line, rest: line.sum - shown.reduce((sum, c) => sum + line.products[c], 0) }));
      const isBiased = this.lines[0].bias !== null;
      Object.assign(this, { C, D, columns, vector, perLine: columns + (C > columns) + isBiased });
      this.last = this.lines.length * this.perLine;
      this.moments.limit(0, this.last);
      this.draw();
      this.go(this.at ?? this.perLine); // at first with one number computed
      const name = TERMS[this.term];
      const rotated = this.model.config.position === "rotary" && this.term < 2 ? ", before it is rotated by its position" : "";
      return [
        `Layer ${layer + 1}, head ${head + 1}: the vector of `, chip(pieces[token]), `, ${count(C)} numbers, becomes a ${name} of ` +
          `${count(D)} numbers${rotated}. Shown: ${GPT.draw.list(this.lines.map(({ index, result }) => `number ${index + 1} is ${number(result)}`))}.`,
      ];
    },

    /** One row of the matrix with its products, their sum, its bias or null, and the result: number `index` of the new vector. */
    line(first, index, weights, vector) {
      const matrix = row(weights["attention.qkv.weight"], first + index); // (C)
      const products = matrix.map((w, c) => w * vector[c]);
      const sum = products.reduce((so, x) => so + x, 0);
      const bias = weights["attention.qkv.bias"] ? weights["attention.qkv.bias"][first + index] : null;
      return { index, matrix, products, sum, bias, result: sum + (bias ?? 0) };
    },

    /** Where a step is: the line that is computed, and the products of it that are added; step 0 is before the first. */
    place(at) {
      const line = Math.min(Math.floor(Math.max(0, at - 1) / this.perLine), this.lines.length - 1);
      return { line, added: at - line * this.perLine };
    },

    name(at) {
      if (!at || !this.lines) return "start";
      const { line, added } = this.place(at);
      const what = added <= this.columns ? `product ${added}` : added === this.columns + 1 && this.C > this.columns ? "all other products" : "the bias";
      return `number ${this.lines[line].index + 1}, ${what}`;
    },

    go(to) {
      this.at = Math.max(0, Math.min(this.last, to));
      this.moments.show(this.at);
      GPT.parts.enable(this.back, this.at > 0);
      GPT.parts.enable(this.next, this.at < this.last);
      this.mark();
    },

    toggle() {
      if (this.timer) return this.stop();
      if (this.isFresh || this.at === this.last) this.at = 0;
      this.isFresh = false;
      this.play.textContent = "❚❚ Pause";
      const step = () => {
        this.go(this.at + 1);
        this.fly();
        if (this.at === this.last) this.stop();
      };
      this.timer = setInterval(step, PAUSE);
      return step();
    },

    stop() {
      clearInterval(this.timer);
      this.timer = null;
      this.play.textContent = "▶\ufe0e Play";
    },

    /** The excerpt of the matrix, the vector and the result. */
    draw() {
      const { lines, vector, columns, shown, C, D } = this;
      const [most, large] = [largest(...lines.map(({ matrix }) => matrix)), largest(vector)];
      const [term, isCut] = [TERMS[this.term], C > columns];
      const dots = (text) => html("span", { class: "product-dots" }, text);
      const matrix = lines.map(({ matrix: own }, i) => [
        shown.map((c, at) => cell(own[c], most, { "data-at": `${i} ${at}` })), isCut && dots("…")]);
      const part = (name, width, ...cells) =>
        html("div", {}, html("small", {}, name), html("div", { class: "product-cells", style: `--columns: ${width}` }, cells));
      const letter = term[0];
      this.picture.replaceChildren(
        part([html("b", { class: letter }, "W", html("sub", {}, letter)), `: ${D} × ${C}`], columns + (isCut ? 1 : 0), matrix,
          D > lines.length && Array.from({ length: columns }, () => dots("⋮"))),
        html("span", { class: "product-sign" }, "×"),
        part([html("b", { class: "x" }, "x"), `: ${C}`], 1, shown.map((c, at) => cell(vector[c], large, { "data-x": at })), isCut && dots("⋮")),
        html("span", { class: "product-sign" }, "="),
        part([html("b", { class: letter }, letter), `: ${D}`], 1, lines.map((_, i) => html("span", { class: `product-cell of-${term}`, "data-result": i })), D > lines.length && dots("⋮")),
      );
      this.scale = largest(...lines.map(({ result }) => [result]));
    },

    /** Shows the picture and the sum at the present step. */
    mark() {
      const { line, added } = this.place(this.at);
      const { columns, lines, shown, C } = this;
      for (const one of this.picture.querySelectorAll("[data-at], [data-x]")) {
        const [i, c] = "x" in one.dataset ? [line, Number(one.dataset.x)] : one.dataset.at.split(" ").map(Number);
        one.classList.toggle("is-row", i === line && this.at > 0);
        one.classList.toggle("is-now", i === line && c === added - 1);
      }
      for (const one of this.picture.querySelectorAll("[data-result]")) {
        const i = Number(one.dataset.result);
        const isKnown = i < line || (i === line && added === this.perLine);
        one.textContent = isKnown ? number(lines[i].result) : "?";
        one.style.setProperty("--strength", isKnown ? strength(lines[i].result, this.scale) : "0%");
        one.classList.toggle("is-minus", isKnown && lines[i].result < 0);
        one.classList.toggle("is-now", i === line && this.at > 0);
      }
      const { matrix, products, rest, bias } = lines[line];
      const terms = shown.map((c) => [`${number(matrix[c])} × ${number(this.vector[c])}`, products[c]]);
      if (C > columns) terms.push([`all other ${count(C - columns)} products`, rest]);
      if (bias !== null) terms.push(["a bias, learned like the matrix", bias]);
      this.showSum(terms, line, added);
    },

    /** The products of a line, those added so far in full colour; each bar begins where the one before it ended. */
    showSum(terms, line, added) {
      let sum = 0;
      const spans = terms.map(([, value]) => [sum, (sum += value)]);
      const [low, high] = [Math.min(0, ...spans.flat()), Math.max(0, ...spans.flat())];
      const percentage = (value) => (100 * value) / (high - low || 1);
      const bar = ([from, to]) =>
        html("span", {
          class: to < from ? "product-bar is-minus" : "product-bar",
          style: `left: ${percentage(Math.min(from, to) - low).toFixed(2)}%; width: ${percentage(Math.abs(to - from)).toFixed(2)}%`,
        });
      const isWhole = added === this.perLine;
      this.sum.replaceChildren(
        html("caption", {}, `Number ${this.lines[line].index + 1} of the ${TERMS[this.term]}`),
        html("tbody", {},
          terms.map(([words, value], i) =>
            html("tr", { class: i >= added ? "is-later" : i === added - 1 ? "is-now" : null },
              html("th", { scope: "row" }, words),
              html("td", { class: "numbers" }, number(value)),
              html("td", { class: "product-track" }, bar(spans[i])))),
          html("tr", { class: "product-result" },
            html("th", { scope: "row" }, isWhole ? "sum" : "sum so far"),
            html("td", { class: `numbers ${TERMS[this.term][0]}` }, number(added ? spans[added - 1][1] : 0)),
            html("td", {}))));
    },

    /** The two numbers of the present product move to their line of the sum. */
    fly() {
      if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
      const to = this.sum.querySelector(".is-now th")?.getBoundingClientRect();
      for (const cell of to ? this.picture.querySelectorAll(".is-now:is([data-at], [data-x])") : []) {
        const from = cell.getBoundingClientRect();
        const ghost = cell.cloneNode(true);
        ghost.classList.add("is-flying");
        Object.assign(ghost.style, { left: `${from.left}px`, top: `${from.top}px`, width: `${from.width}px`, height: `${from.height}px` });
        document.body.append(ghost); // a fixed place in the window, which it would not have inside of its chapter
        const way = `translate(${to.left - from.left}px, ${to.top - from.top}px)`;
        ghost.animate([{ transform: "none" }, { transform: way, opacity: 0.3 }], { duration: FLIGHT, easing: "ease-in-out" }).onfinish = () => ghost.remove();
      }
    },
  });

  /** The `most` items with the largest sizes. */
  const largestFirst = (items, size, most) => [...items].sort((one, other) => size(other) - size(one)).slice(0, most);

  const strength = (value, most) => `${Math.round((100 * Math.abs(value)) / most)}%`;

  /** One number, coloured like a cell of a strip. */
  function cell(value, most, attributes) {
    const kind = ["product-cell", attributes.class, value < 0 && "is-minus"].filter(Boolean).join(" ");
    return html("span", { ...attributes, class: kind, style: `--strength: ${strength(value, most)}` }, number(value));
  }
})();
