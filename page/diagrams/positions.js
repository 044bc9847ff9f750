// Four ways to encode positions, each computed at this model's sizes.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, svg, paint, largest, number, list, row, length } = GPT.draw;
  const { dot } = GPT.maths;
  const KINDS = ["learned", "sinusoidal", "rotary", "alibi"];
  const CLOCKS = 8;
  const APART = 3; // the distance of the key from the query whose rotations are compared
  const [WIDTH, HEIGHT, LOWEST] = [600, 230, 8];
  const SOME = 0.05; // a smaller difference between two mean cosines is hardly one

  /** The mean cosine of neighbouring rows of a table (positions, C), and of all other pairs of rows. */
  function similarity(table) {
    const [positions, C] = table.shape;
    const lengths = Array.from({ length: positions }, (_, p) => length(row(table, p)) || 1);
    const [sums, counts] = [[0, 0], [0, 0]];
    for (let p = 0; p < positions; p += 1) {
      for (let other = p + 1; other < positions; other += 1) {
        const kind = other === p + 1 ? 0 : 1;
        sums[kind] += dot(table, p * C, table, other * C, C) / (lengths[p] * lengths[other]);
        counts[kind] += 1;
      }
    }
    return { beside: sums[0] / (counts[0] || 1), apart: sums[1] / (counts[1] || 1) };
  }

  GPT.diagram("positions", {
    mount(element, model) {
      Object.assign(this, { model, kind: model.config.position });
      const names = KINDS.map((kind) => (kind === model.config.position ? `${kind} (this model)` : kind));
      const choice = GPT.parts.choice("Kind", names, (index) => {
        this.kind = KINDS[index];
        GPT.app.set({});
      });
      choice.show(KINDS.indexOf(this.kind));
      this.picture = html("div", {});
      element.append(html("div", { class: "controls" }, choice.element), this.picture);
    },

    update({ token, tokens }) {
      const sentence = this[this.kind](token, tokens.length);
      const isOurs = this.kind === this.model.config.position;
      return isOurs
        ? sentence
        : `${sentence} This model does not use this method; the picture shows the formula at its sizes.`;
    },

    learned(token) {
      if (!this.model.weights["embeddings.position.weight"]) {
        this.picture.replaceChildren(
          html("p", { class: "note" }, "A learned table exists only after training. This model has none."),
        );
        return "Learned positions are a second table with one row for each position, learned in training like all other weights.";
      }
      this.table(this.model.weights["embeddings.position.weight"], token, "The learned position table");
      if (this.closest === undefined) return `The chosen token has position ${token}. The table has no other.`;
      const found = `The chosen token has position ${token}. The most similar row is that of position ${this.closest}.`;
      if (Math.abs(this.closest - token) === 1) return `${found} From the text alone, the model learned that these two positions are neighbours.`;
      const { beside, apart } = (this.means ??= similarity(this.model.weights["embeddings.position.weight"]));
      const compared = beside > apart + SOME ? "more similar than" : beside > apart - SOME ? "hardly more similar than" : "less similar than";
      return `${found} That is not a neighbour: in this table, rows of neighbouring positions are ${compared} other rows (cosine ${number(beside)} on average, other pairs ${number(apart)}). The model has to tell positions apart; nothing in training asks that neighbours look alike.`;
    },

    sinusoidal(token) {
      this.table(
        GPT.positions.sinusoidal(this.model.config.max_seq_len, this.model.config.d_model),
        token,
        "The sinusoidal table",
      );
      return `The chosen token has position ${token}. The first columns change from one position to the next, the last ones hardly at all, like the hands of many clocks.`;
    },

    /** A table (positions, C) as a picture with the token's row marked, and the similarity of each row to it. */
    table(table, token, name) {
      const [positions, C] = table.shape;
      const canvas = html("canvas", {
        class: "map",
        role: "img",
        "aria-label": `${name}: ${positions} rows of ${C} numbers`,
      });
      paint(canvas, table, C, largest(table) * 0.6);
      const mark = html("div", { class: "map-mark", style: `top: ${(100 * (token + 0.5)) / positions}%` });
      const own = row(table, token);
      const similar = Float32Array.from(
        { length: positions },
        (_, p) => dot(own, 0, table, p * C, C) / (length(own) * length(row(table, p)) || 1),
      );
      this.closest = GPT.draw.best(similar, 2).find((p) => p !== token);
      this.strips ??= GPT.parts.strips("Similarity of the chosen token's position to every position");
      this.picture.replaceChildren(
        html(
          "p",
          { class: "note" },
          `Each row is a position, from 0 at the top to ${positions - 1}; each column is one of ${C} numbers. The mark shows the position of your token.`,
        ),
        html("div", { class: "map-box" }, canvas, mark),
        html("h4", {}, `Similarity of position ${token} to every position`),
        this.strips.element,
      );
      this.strips.show([{ label: "cosine", values: similar, most: 1 }], (p) => `Position ${p}: ${number(similar[p])}.`);
    },

    rotary(token) {
      const key = Math.max(0, token - APART);
      const { headDim: D, config } = this.model;
      const pairs = Math.floor(D / 2);
      const shown = Array.from({ length: Math.min(CLOCKS, pairs) }, (_, i) =>
        Math.floor((i * pairs) / Math.min(CLOCKS, pairs)),
      );
      this.picture.replaceChildren(
        html(
          "p",
          { class: "note" },
          `Each clock is one pair of the ${D} numbers of a query or a key. The `,
          html("span", { class: "q", "data-term": "query" }, "long hand"),
          ` is the query at position ${token}, the `,
          html("span", { class: "k", "data-term": "key" }, "short hand"),
          ` the key at position ${key}: both were at 12 o'clock before the rotation. The number is the angle between them, in radians.`,
        ),
        html(
          "div",
          { class: "clocks" },
          shown.map((pair) => clock(pair, token, key, config.rope_theta ** ((-2 * pair) / D))),
        ),
      );
      return `At position ${token} the first pair is rotated by ${number(token, 0)} radians, later pairs by less and less. The angle between the two hands depends only on the distance of the two tokens, ${token - key}, and not on their absolute positions. So does the dot product of a rotated query and key.`;
    },

    alibi(token) {
      const { num_heads: H, max_seq_len: longest } = this.model.config;
      const slopes = GPT.positions.slopes(H);
      const scroll = { class: "scroll", tabindex: 0, role: "region", "aria-label": "Penalties by distance" };
      this.picture.replaceChildren(
        html(
          "p",
          { class: "note" },
          "How much each head subtracts from a score, by the distance of the two tokens. ",
          "The mark shows the distance from your token to the first one.",
        ),
        html("div", scroll, fan(slopes, Math.max(1, longest - 1), token)),
      );
      const taken = slopes.slice(0, 8).map((slope) => number(slope * token));
      return (
        `The first token is at distance ${token}; the heads lower its score by ${list(taken)}` +
        `${H > 8 ? " and so on" : ""}. Heads with a steep slope attend to near tokens, heads with a flat one also to distant tokens.`
      );
    },
  });

  /** The penalty of each head as a line over the distance, up to `far`; and a mark at the distance `here`. */
  function fan(slopes, far, here) {
    const x = (distance) => 34 + (distance / far) * (WIDTH - 100);
    const y = (penalty) => 18 + (penalty / LOWEST) * (HEIGHT - 56);
    const line = (from, to, kind) =>
      svg("line", { x1: x(from[0]), y1: y(from[1]), x2: x(to[0]), y2: y(to[1]), class: kind });
    const text = (left, top, words, anchor = "start") => svg("text", { x: left, y: top, "text-anchor": anchor }, words);
    const heads = slopes.flatMap((slope, head) => {
      const end = Math.min(far, LOWEST / slope);
      const [below, anchor] = end < far ? [15, "end"] : [4, "start"];
      return [
        line([0, 0], [end, slope * end], "line"),
        text(x(end) + 6, y(slope * end) + below, `head ${head + 1}`, anchor),
      ];
    });
    const name = `Penalties of ${slopes.length} heads, growing with distance`;
    return svg(
      "svg",
      { class: "plot is-wide", width: WIDTH, height: HEIGHT, role: "img", "aria-label": name },
      line([0, 0], [far, 0], "axis"),
      line([0, 0], [0, LOWEST], "axis"),
      line([here, 0], [here, LOWEST], "here"),
      text(x(0) - 8, y(0) + 4, "0", "end"),
      text(x(0) - 8, y(LOWEST) + 4, `−${LOWEST}`, "end"),
      text(x(0), HEIGHT - 8, "distance 0"),
      text(x(far), HEIGHT - 8, `${far}`, "end"),
      heads,
    );
  }

  /** The rotations of a query and a key, at the positions `token` and `key`, by `speed` radians for each position. */
  function clock(pair, token, key, speed) {
    const hand = (angle, long, kind) =>
      svg("line", { x1: 30, y1: 30, x2: 30 + long * Math.sin(angle), y2: 30 - long * Math.cos(angle), class: `line hand-${kind}` });
    const between = number((token - key) * speed);
    const name = `pair ${pair + 1}: query ${number(token * speed)} radians, key ${number(key * speed)} radians`;
    return html(
      "div",
      {},
      svg(
        "svg",
        { class: "plot", width: 60, height: 60, role: "img", "aria-label": name },
        svg("circle", { cx: 30, cy: 30, r: 26, class: "axis" }),
        hand(token * speed, 23, "query"),
        hand(key * speed, 15, "key"),
      ),
      html("small", {}, `pair ${pair + 1}`),
      html("small", {}, between),
    );
  }
})();
