// The first picture: the reader's text flows through a map of the whole model. The drawing is in picture.js, the places in
// layout.js, the numbers in plan.js, the bars at the end in outcomes.js; here are the other parts that
// can be pressed, and the words.

(() => {
  "use strict";
  const { html, svg, best, chip, percent, spoken, visible, paint, palette, largest, row } = GPT.draw;
  const { layout } = GPT.map;
  const { put } = layout;
  const RUN = 900; // milliseconds that a light takes through the model

  const words = ([first, last]) => (first === last ? `${first + 1}` : `${first + 1}–${last + 1}`);
  const inside = (value, [first, last]) => first <= value && value <= last;
  const plural = ([first, last], noun) => (first === last ? noun : `${noun}s`);

  GPT.diagram("map", {
    mount(element, model) {
      this.model = model;
      this.drawing = svg("svg", { "aria-hidden": "true" });
      this.labels = html("div", { class: "map-labels" });
      this.chips = html("div", { class: "map-chips", role: "group", "aria-label": "Tokens: choose one" });
      this.heads = html("div", { class: "map-heads", role: "group", "aria-label": "Attention heads: choose one" });
      this.outcomes = GPT.map.outcomes();
      this.stage = html("div", { class: "map-stage" }, this.drawing, this.labels, this.heads, this.chips, this.outcomes.element);
      const button = html("button", { type: "button", class: "action map-write" });
      this.legend = html("p", { class: "map-legend" });
      element.append(this.stage, html("div", { class: "map-foot" }, this.legend, button));
      this.picture = GPT.map.picture(this.drawing, (line) => this.choose(line));
      const hum = document.querySelector(".opening img");
      this.hum = () => hum && GPT.map.hum(hum, RUN);
      GPT.map.writer(button, { changed: (words) => { this.writing = words; this.explain(); } });
      GPT.parts.roving(this.chips, () => Array.from(this.chips.children), (line) => this.choose(line));
      GPT.parts.roving(this.heads, () => Array.from(this.heads.querySelectorAll("button")), (at) => this.chooseHead(at));
      new ResizeObserver(() => this.state && this.resize()).observe(this.stage);
    },

    update(state) {
      this.state = state;
      this.resize();
      if (state.tokens !== this.seen) {
        if (this.seen) {
          this.picture.pulse(RUN);
          this.hum();
        }
        this.seen = state.tokens;
      }
      return this.sentence();
    },

    explain() { if (this.state) this.legend.replaceChildren(...this.words()); },

    choose(line) {
      GPT.app.set({ token: this.lines[line].last, key: null });
    },

    chooseHead(at) {
      const { layers, heads } = this.columns[at];
      const { layer, head } = this.state;
      const isInside = inside(layer, layers) && inside(head, heads);
      GPT.app.set({ layer: isInside ? layer : layers[0], head: isInside ? head : heads[0], key: null });
    },

    /** Draws all for the stage's current size; the parts that depend on the size only are made when it changes. */
    resize() {
      const { clientWidth, clientHeight } = this.stage;
      if (!clientWidth) return;
      this.frame = layout.frame(clientWidth, clientHeight);
      const { config } = this.model;
      const parts = GPT.map.segments(config, layout.room(this.frame, config), this.state.layer);
      const key = JSON.stringify([clientWidth, clientHeight, parts]);
      if (key !== this.key) this.build(parts);
      this.key = key;
      this.draw();
    },

    build(parts) {
      const { isUpright, width, height } = this.frame;
      this.stage.classList.toggle("is-upright", isUpright);
      this.drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
      this.parts = parts;
      this.places = layout.place(this.frame, parts);
      const columns = parts.flatMap(({ layers, heads }, s) =>
        heads.map((range, i) => ({ layers, heads: range, segment: s, u: this.places[s].columns[i], width: this.places[s].width })),
      );
      const hadFocus = this.heads.contains(document.activeElement);
      this.heads.replaceChildren(...columns.map((column, at) => this.headButton(column, at)));
      this.columns = columns; // only now: a button that loses the focus describes the columns that were drawn
      const { layer, head } = this.state;
      const chosen = columns.findIndex(({ layers, heads }) => inside(layer, layers) && inside(head, heads));
      if (hadFocus) this.heads.children[chosen]?.focus({ preventScroll: true });
      this.labels.replaceChildren(...this.partLabels());
    },

    headButton({ heads, u, width }, at) {
      const { isUpright, across: [from, to] } = this.frame;
      const onclick = (event) => {
        const line = event.detail ? this.lineAt(event) : -1;
        if (line >= 0) this.choose(line);
        this.chooseHead(at);
      };
      const button = html("button", { type: "button", class: "map-head", onclick }, html("span", {}, this.headLabel(heads)));
      for (const name of ["pointerenter", "focus"]) {
        button.addEventListener(name, () => this.legend.replaceChildren(`${button.getAttribute("aria-label")}.`));
      }
      for (const name of ["pointerleave", "blur"]) button.addEventListener(name, () => this.explain());
      if (isUpright) put(button, true, u, 18, width, to - 18);
      else put(button, false, u, from - 18, width, to - from + 18);
      return button;
    },

    /** One head's number; "all" where a column shows the mean of all heads. */
    headLabel(range) {
      return range[0] !== range[1] && range[1] - range[0] + 1 === this.model.config.num_heads ? "all" : words(range);
    },

    /** The line under the pointer, or -1. */
    lineAt({ clientX, clientY }) {
      const box = this.stage.getBoundingClientRect();
      const v = this.frame.isUpright ? clientX - box.left : clientY - box.top;
      return this.rows.findIndex((place) => Math.abs(place - v) < 9);
    },

    partLabels() {
      const { isUpright, across: [from, to], start, chip: width } = this.frame;
      const link = (to, text, name) => html("a", { href: `#${to}`, class: "map-part", "data-part": to, "aria-label": name }, text);
      const blocks = this.parts.flatMap(({ layers }, s) => {
        const { from: u, headsEnd, node, to: end } = this.places[s];
        const block = link("block", `${isUpright || headsEnd - u < 60 ? "" : "Block "}${words(layers)}`, `${plural(layers, "Block")} ${words(layers)}`);
        const disc = html("a", { href: "#feedforward", class: "map-forward", "data-part": "feedforward" });
        disc.setAttribute("aria-label", `Feed-forward network of ${plural(layers, "block")} ${words(layers)}`);
        disc.title = "Feed-forward network: to its chapter";
        if (isUpright) {
          put(block, true, u, 0, headsEnd - u, 18);
          put(disc, true, headsEnd, 18, end - headsEnd, to - 18);
        } else {
          put(block, false, u, 0, headsEnd - u, 24);
          put(disc, false, headsEnd, from - 18, end - headsEnd, to - from + 18);
        }
        disc.append(html("span", {}, "ff"));
        return [block, disc];
      });
      if (isUpright) return blocks;
      const tokens = link("tokens", "Tokens");
      const embeddings = link("embeddings", "Vectors", "Embeddings");
      put(tokens, false, 0, 0, width, 24);
      put(embeddings, false, width + 2, 0, start - width - 2, 24);
      return [tokens, embeddings, ...blocks];
    },

    draw() {
      const { state, frame } = this;
      const { trace, token } = state;
      this.lines = GPT.map.lines(state, frame.most);
      this.rows = layout.across(frame, this.lines.length);
      const chosen = this.lines.findIndex(({ first, last }) => first <= token && token <= last);
      for (const column of this.columns) {
        column.weights = GPT.map.weights(trace, this.lines, column.layers, column.heads);
        column.isChosen = inside(state.layer, column.layers) && inside(state.head, column.heads);
        column.name = `${words(column.layers)}.${words(column.heads)}`;
      }
      const n = this.lines.length;
      // The scale ends at the largest weight on a single token; all earlier tokens together may have more.
      const from = this.lines[0].first === this.lines[0].last ? 0 : 1;
      const ofChosen = ({ weights }) => Array.from(weights.subarray(chosen * n + from, chosen * n + n));
      this.most = Math.max(...this.columns.flatMap(ofChosen), 1e-9);
      this.drawChips(chosen);
      this.nameHeads(chosen);
      const targets = this.outcomes.draw(state, frame);
      this.picture.draw({
        isUpright: frame.isUpright,
        across: frame.across,
        lines: this.rows,
        chosen,
        gathered: this.lines[0].first === this.lines[0].last ? 0 : 1,
        stops: this.stops(),
        lengths: this.lines.map((line) => this.lengths(line)),
        columns: this.columns,
        most: this.most,
        nodes: this.parts.map((part, s) => ({ u: this.places[s].node, lengths: this.lines.map((line) => GPT.map.correction(trace, line, part)) })),
        largestDisc: frame.disc,
        fan: { from: frame.fan[0], to: frame.fan[1], width: frame.isUpright ? 60 : 46, targets },
      });
      this.explain();
    },

    /** The places where a stream's thickness is known, and its length there. */
    stops() {
      const { fan } = this.frame;
      const begin = this.frame.chip + this.frame.strip + 8;
      return [begin, ...this.places.flatMap(({ from, headsEnd, node }) => [from, headsEnd, node + 4]), fan[0]];
    },

    lengths(line) {
      const known = GPT.map.streamLengths(this.state.trace, line, this.parts); // start, then after attention and after the block
      const found = [known[0]];
      this.parts.forEach((_, s) => found.push(known[2 * s], known[2 * s + 1], known[2 * s + 2]));
      return [...found, known[known.length - 1]];
    },

    drawChips(chosen) {
      const { isUpright, chip: width, strip } = this.frame;
      const gap = this.rows.length > 1 ? this.rows[1] - this.rows[0] : 60;
      const { pieces, trace } = this.state;
      while (this.chips.children.length > this.lines.length) this.chips.lastChild.remove();
      while (this.chips.children.length < this.lines.length) {
        const at = this.chips.children.length;
        this.chips.append(html("button", { type: "button", class: "map-chip", onclick: () => this.choose(at) }, html("span", {}), html("canvas", { "aria-hidden": "true" })));
      }
      const colours = palette();
      this.lines.forEach(({ first, last }, i) => {
        const button = this.chips.children[i];
        const many = last > first ? `${last - first + 1} earlier` : null;
        const letters = isUpright ? Math.floor((gap - 6) / 6.2) : 9;
        button.firstChild.textContent = many || visible(pieces[first], Math.max(2, letters));
        button.setAttribute("aria-label", many ? `${many} tokens` : `token ${first + 1}: ${spoken(pieces[first])}`);
        button.setAttribute("aria-pressed", String(i === chosen));
        button.tabIndex = i === chosen ? 0 : -1;
        button.classList.toggle("is-gathered", Boolean(many));
        const size = isUpright ? [width + strip + 2, gap - 3] : [width + strip + 4, Math.min(gap - 2, 26)];
        put(button, isUpright, 0, this.rows[i] - size[1] / 2, ...size);
        const vector = row(trace.embedded, last);
        paint(button.lastChild, vector, isUpright ? 16 : 32, largest(vector), colours);
      });
    },

    nameHeads(chosen) {
      const { pieces } = this.state;
      const buttons = this.heads.children;
      const n = this.lines.length;
      const start = this.columns.findIndex(({ isChosen }) => isChosen);
      this.columns.forEach(({ layers, heads, weights, isChosen }, at) => {
        const own = weights.subarray(chosen * n, chosen * n + n);
        const most = best(own, 1)[0];
        const to = this.lines[most];
        const target = most === chosen ? "itself" : to.first === to.last ? spoken(pieces[to.first]) : "the earlier tokens";
        const name = `${plural(layers, "Block")} ${words(layers)}, ${plural(heads, "head")} ${words(heads)}`;
        const text = `${name}: ${percent(own[most])} of the attention of ${spoken(pieces[this.state.token])} on ${target}`;
        buttons[at].setAttribute("aria-label", text);
        buttons[at].setAttribute("aria-pressed", String(isChosen));
        buttons[at].tabIndex = at === Math.max(0, start) ? 0 : -1;
      });
    },

    /** What the thickest curve stands for, and what is not shown; or that the model writes. */
    words() {
      if (this.writing) return [this.writing];
      const { pieces, token } = this.state;
      const [first, last] = [this.lines[0], this.lines[this.lines.length - 1]];
      const [isGathered, later] = [first.first < first.last, pieces.length - 1 - last.last];
      const { column: { layers, heads }, line: { first: target }, weight } = GPT.map.thickest(this.columns, this.lines, token);
      const mean = layers[0] < layers[1] || heads[0] < heads[1] ? "mean of " : "";
      return [`The thickest curve${isGathered ? " to one token" : ""}: `, chip(pieces[token]), ` gives ${percent(weight)} of its attention to `,
        target === token ? "itself" : chip(pieces[target]),
        ` (${mean}${plural(layers, "block")} ${words(layers)}, ${plural(heads, "head")} ${words(heads)}).`,
        later > 0 && ` ${later} later ${later > 1 ? "tokens are" : "token is"} not shown.`,
      ].filter(Boolean);
    },

    sentence() {
      const { pieces, token, layer, head, next } = this.state;
      const found = best(next(token), 1)[0];
      return ["After ", chip(pieces[token]), " the model expects ", chip(GPT.app.piece(found)), ` (${percent(next(token)[found])}).`];
    },
  });
})();
