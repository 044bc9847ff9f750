// A passage, and the same passage again: what the model predicts the first and the second time, and where one head
// attends from the second copy. The head is the page's; the reader can switch it off here.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, svg, percent, chip, visible, spoken, row } = GPT.draw;

  const MOST = 20; // tokens of a passage
  const VISIBLE = 0.02; // weights below this are not drawn
  const TEXTS = [
    { name: "A passage", text: "\nMy lord, the people of the town are come to see your daughter's ring." },
    { name: "Nonsense", text: " moon the daughter good with sword be night your go heart of but king bread sleep" },
    { name: "Your text", text: null },
  ];

  GPT.diagram("twice", {
    mount(element, model) {
      Object.assign(this, { model, source: 0, at: null, known: new Map() });
      this.texts = GPT.parts.choice("Text", TEXTS.map(({ name }) => name), (source) => {
        Object.assign(this, { source, at: null });
        this.redraw();
      });
      this.choices = [GPT.parts.layerChoice(model), GPT.parts.headChoice(model)];
      this.strongest = html("button", { type: "button", class: "action" }, "Strongest induction head");
      this.strongest.addEventListener("click", () => {
        const { layer, head } = this.bestHead();
        GPT.app.set({ layer, head, key: null });
      });
      this.off = html("input", { type: "checkbox", onchange: () => this.redraw() });
      this.picture = html("div", { class: "twice scroll" });
      this.summary = html("p", { class: "twice-summary", role: "status" });
      element.append(
        html("div", { class: "controls" }, this.texts.element, this.choices.map(({ element: one }) => one), this.strongest,
          html("label", { class: "twice-off" }, this.off, " Switch this head off")),
        this.picture,
        this.summary,
      );
      new ResizeObserver(() => this.drawLines()).observe(this.picture);
    },

    update(state) {
      this.state = state;
      this.texts.show(this.source);
      for (const choice of this.choices) choice.show(state);
      return this.show();
    },

    redraw() {
      const reading = this.picture.closest("figure").querySelector(".reading");
      reading.replaceChildren(...[this.show()].flat());
    },

    /** The ids of the passage, at most half of what the model can read. */
    passage() {
      const { text } = TEXTS[this.source];
      const { tokenizer, config } = this.model;
      const most = Math.min(MOST, Math.floor(config.max_seq_len / 2));
      return text === null ? this.state.tokens.slice(-most || Infinity) : tokenizer.encode(text).slice(0, most);
    },

    /** The trace of the passage, twice in a row; `without`: { layer, head }, whose output is replaced by zeros. */
    run(ids, without) {
      const key = JSON.stringify([ids, without]);
      if (!this.known.has(key)) {
        if (this.known.size > 8) this.known.clear();
        const twice = [...ids, ...ids];
        const off = without && new Set([`${without.layer}.head.${without.head}`]);
        const trace = off ? GPT.ablation.without(this.model, twice, off, "zero", this.run(ids).trace) : this.model.run(twice);
        this.known.set(key, { trace, probabilities: rightOnes(trace, ids) });
      }
      return this.known.get(key);
    },

    bestHead() {
      const ids = this.passage();
      const habit = GPT.headHabits(this.run(ids).trace, [...ids, ...ids]).find(({ name }) => name === "induction");
      return habit ? habit.best : { layer: 0, head: 0 };
    },

    show() {
      const { layer, head } = this.state;
      this.ids = this.passage();
      const n = this.ids.length;
      GPT.parts.enable(this.strongest, n > 1);
      if (n < 2) {
        this.picture.replaceChildren();
        this.summary.textContent = "";
        const longest = this.model.config.max_seq_len;
        return longest < 4
          ? `This model reads at most ${GPT.draw.things(longest, "token")}: too few for a passage and its copy.`
          : "Type at least two tokens to have them read twice.";
      }
      const whole = this.run(this.ids);
      this.weights = row(whole.trace.layers[layer].weights, head, whole.trace.T ** 2); // (2n, 2n), row by row
      this.shown = this.off.checked ? this.run(this.ids, { layer, head }) : whole;
      this.at = Math.min(n - 1, this.at ?? this.plainest());
      this.drawTokens();
      this.drawLines();
      const habits = GPT.habits(this.weights, [...this.ids, ...this.ids]);
      this.summarise(habits.find(({ name }) => name === "induction"));
      return this.sentence();
    },

    /** The token of the second copy that attends most to the one that followed it in the first. */
    plainest() {
      const n = this.ids.length;
      return GPT.draw.best(Array.from({ length: n - 1 }, (_, i) => this.weights[(n + i) * 2 * n + i + 1]), 1)[0];
    },

    /** Two rows of the same tokens; above them, the probability of each, the first and the second time. */
    drawTokens() {
      const n = this.ids.length;
      const pieces = this.ids.map(GPT.app.piece);
      const hadFocus = this.picture.contains(document.activeElement);
      const bars = pieces.map((_, i) =>
        html("div", { class: "twice-bars", "aria-hidden": "true" },
          [i, n + i].map((t) => html("span", { style: `height: ${100 * (this.shown.probabilities[t] ?? 0)}%` }))));
      const first = pieces.map((piece) => html("span", { class: "token" }, visible(piece, 14)));
      this.second = pieces.map((piece, i) =>
        html("button", {
          type: "button",
          class: "token",
          role: "option",
          tabindex: i === this.at ? 0 : -1,
          "aria-selected": String(i === this.at),
          "aria-label": `second copy, token ${i + 1}: ${spoken(piece)}`,
          onclick: () => this.choose(i),
        }, visible(piece, 14)));
      first[this.at + 1]?.classList.add("is-new");
      this.first = first;
      this.lines = svg("svg", { class: "twice-lines", "aria-hidden": "true" });
      const list = html("div", { class: "twice-second", role: "listbox", "aria-orientation": "horizontal",
        "aria-label": "The second copy: choose a token" }, this.second);
      GPT.parts.roving(list, () => this.second, (i) => this.choose(i));
      const label = (words) => html("span", { class: "twice-label" }, words);
      this.grid = html("div", { class: "twice-grid", style: `--tokens: ${n}`, "data-ids": this.ids.join(" ") },
        label("right token"), bars, label("first time"), first, html("span", {}), this.lines, label("second time"), list);
      this.picture.replaceChildren(this.grid);
      if (hadFocus) this.second[this.at].focus({ preventScroll: true });
    },

    choose(at) {
      this.at = Math.min(at, this.ids.length - 1);
      this.redraw();
    },

    /** From each token of the second copy to the tokens of the first: the wider the line, the larger the weight. */
    drawLines() {
      if (!this.grid?.isConnected || this.ids.length < 2) return;
      const n = this.ids.length;
      const left = this.lines.getBoundingClientRect().left;
      const middle = (element) => {
        const box = element.getBoundingClientRect();
        return box.left + box.width / 2 - left;
      };
      const [tops, bottoms] = [this.first.map(middle), this.second.map(middle)];
      const height = this.lines.clientHeight;
      const lines = [];
      for (let i = 0; i < n; i += 1) {
        for (let s = 0; s < n; s += 1) {
          const weight = this.weights[(n + i) * 2 * n + s];
          if (weight < VISIBLE) continue;
          const d = `M${bottoms[i].toFixed(1)} ${height}C${bottoms[i].toFixed(1)} ${height / 2} ${tops[s].toFixed(1)} ${height / 2} ${tops[s].toFixed(1)} 0`;
          lines.push(svg("path", { d, class: i === this.at ? "is-chosen" : null, "stroke-width": (1 + 5 * weight).toFixed(2),
            "stroke-opacity": (i === this.at ? 0.35 + 0.65 * weight : 0.6 * weight).toFixed(3) }));
        }
      }
      this.lines.replaceChildren(...lines.sort((a, b) => a.classList.length - b.classList.length));
    },

    summarise(induction) {
      const n = this.ids.length;
      const mean = (from) => this.shown.probabilities.slice(from + 1, from + n).reduce((sum, p) => sum + p, 0) / (n - 1);
      const { layer, head } = this.state;
      const off = this.off.checked ? ` With head ${head + 1} of layer ${layer + 1} switched off,` : "";
      this.summary.replaceChildren(
        off ? `${off} the` : "The", " right token has on average a probability of ",
        html("b", { "data-twice": "first" }, percent(mean(0))), " the first time, and ",
        html("b", { "data-twice": "second" }, percent(mean(n))), ` the second time. Head ${head + 1} of layer ${layer + 1} gives `,
        html("b", { "data-twice": "induction" }, percent(induction.score)),
        ` of its attention to tokens that followed an earlier copy; an even head, ${percent(induction.even)}.`,
      );
    },

    sentence() {
      const n = this.ids.length;
      const pieces = this.ids.map(GPT.app.piece);
      const at = this.at;
      const token = chip(pieces[at]);
      if (at === n - 1) return ["Nothing follows ", token, " in the first copy but the second copy itself."];
      const weight = this.weights[(n + at) * 2 * n + at + 1];
      return [
        "The second ", token, " gives ", html("b", { "data-twice": "weight" }, percent(weight)), " of its attention in this head to ",
        chip(pieces[at + 1]), ", which followed it the first time. The probability that ", chip(pieces[at + 1]), " comes next was ",
        html("b", {}, percent(this.shown.probabilities[at + 1])), " then, and is now ",
        html("b", {}, percent(this.shown.probabilities[n + at + 1])), ".",
      ];
    },
  });

  /** The probability that the model gave to each token of both copies, but the very first. */
  function rightOnes(trace, ids) {
    const both = [...ids, ...ids];
    return both.map((id, t) => (t ? GPT.sampling.softmax(trace.logits(t - 1))[id] : null));
  }
})();
