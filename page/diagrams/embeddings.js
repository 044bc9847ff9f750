// The chosen token's row of the token table, the row of its position, their sum; and the most similar rows.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, best, chip, number, row, length } = GPT.draw;
  const { dot } = GPT.maths;
  const NEIGHBOURS = 6;

  GPT.diagram("embeddings", {
    mount(element, model) {
      this.model = model;
      this.lengths = null; // of the table's rows, computed at the first use
      this.strips = GPT.parts.strips("The numbers of the chosen token's vector");
      this.bars = GPT.parts.bars("Tokens with the most similar rows");
      element.append(
        this.strips.element,
        html("h4", {}, "The most similar rows of the token table"),
        this.bars.element,
      );
    },

    update({ pieces, token, trace }) {
      const [vector, position, sum] = [trace.tokenVectors, trace.positionVectors, trace.embedded].map(
        (m) => m && row(m, token),
      );
      const rows = [{ label: "token", values: vector }];
      if (position) rows.push({ label: "+ position", values: position }, { label: "= sum", values: sum, colour: "stream" });
      this.strips.show(
        rows,
        (c) =>
          `Number ${c + 1} of ${sum.length}: ${
            position
              ? `token ${number(vector[c])}, position ${number(position[c])}, sum ${number(sum[c])}.`
              : `${number(vector[c])}.`
          }`,
      );
      const near = this.nearest(pieces[token].id);
      const most = Math.max(near[0].cosine, 0);
      this.bars.show(
        near.map(({ id, cosine }) => ({ label: chip(GPT.app.piece(id)), fraction: cosine / (most || 1), text: number(cosine) })),
        { most, text: String },
      );
      return [
        "In your text, ",
        chip(pieces[token]),
        ` is row ${pieces[token].id} of the table, a vector of length ${number(length(vector))}. `,
        position
          ? `Its position is ${token}, counted from 0; the vector of this position has length ${number(length(position))}. `
          : "This model adds no vector for the position: positions act inside attention. ",
        "The most similar row is that of ",
        chip(GPT.app.piece(near[0].id)),
        ".",
      ];
    },

    /** The ids whose rows have the largest cosine with this row: 1 is the same direction, 0 a right angle. */
    nearest(id) {
      const { tokenTable } = this.model;
      const [V, C] = tokenTable.shape;
      this.lengths ??= Float32Array.from(
        { length: V },
        (_, v) => Math.sqrt(dot(tokenTable, v * C, tokenTable, v * C, C)) || 1,
      );
      const cosines = Float32Array.from({ length: V }, (_, v) =>
        v === id ? -1 : dot(tokenTable, id * C, tokenTable, v * C, C) / (this.lengths[id] * this.lengths[v]),
      );
      return best(cosines, NEIGHBOURS).map((found) => ({ id: found, cosine: cosines[found] }));
    },
  });
})();
