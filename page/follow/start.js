// Follow one number, the first stops: from letters to an id, a row of the table, the position.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, svg, chip, visible, largest, row } = GPT.draw;
  const { stops, write, addition, symbol, ours, bracket } = GPT.follow;

  /** The tokens around the chosen one that fit into a scene, as [first, last + 1]. */
  function around({ pieces, t }, scene) {
    const room = (from, to) =>
      pieces.slice(from, to).reduce((all, piece) => all + boxWidth(piece) + 14, 0) < scene.width - 20;
    let [from, to] = [t, t + 1];
    for (let grew = true; grew;) {
      grew = false;
      if (from > 0 && room(from - 1, to)) [from, grew] = [from - 1, true];
      if (to < pieces.length && room(from, to + 1)) [to, grew] = [to + 1, true];
    }
    return [from, to];
  }

  const label = (piece) => visible(piece, 12);
  const boxWidth = (piece) => Math.max(44, 10 * Array.from(label(piece)).length + 18);

  stops.push({
    name: "token",
    title: "Letters become an id",
    place: "text",
    value: (story) => String(story.id),
    words: (story) => [
      "The text is cut into tokens. We follow token ",
      `${story.t + 1}, `,
      chip(story.pieces[story.t]),
      ". Its id is its place in the list of all tokens that the model knows: ",
      ours(String(story.id)),
      ".",
    ],
    formula: (story) => [
      html("var", {}, "id"),
      "(",
      chip(story.pieces[story.t]),
      ") = ",
      ours(String(story.id)),
      `, of 0 to ${GPT.draw.count(story.model.config.vocab_size - 1)}`,
    ],
    draw(scene, story) {
      const [from, to] = around(story, scene);
      const shown = story.pieces.slice(from, to);
      const wide = shown.reduce((all, piece) => all + boxWidth(piece) + 14, -14);
      let [x, packed] = [(scene.width - wide) / 2, (scene.width - wide) / 2 + (shown.length * 32) / 2];
      scene.text(scene.width / 2, 24, from || to < story.pieces.length ? "a part of your text" : "your text", {
        anchor: "middle",
        kind: "is-small",
      });
      shown.forEach((piece, i) => {
        const [isOurs, width] = [from + i === story.t, boxWidth(piece)];
        const token = scene.cell({
          x,
          y: 44,
          width,
          height: 38,
          value: 0,
          text: label(piece),
          kind: "token",
          ours: isOurs,
        });
        token.classList.add("is-letters");
        scene.fly(token, packed - 9, 44, 0.3, 1.2, true);
        for (const box of token.querySelectorAll("rect")) scene.tween(0.6, 0.8, (p) => box.setAttribute("opacity", p));
        scene.line(x + width / 2, 88, x + width / 2, 122, { kind: isOurs ? "is-ours" : "", start: 1.7 + 0.15 * i });
        scene.cell({
          x: x + width / 2 - 25,
          y: 126,
          width: 50,
          value: 0,
          text: String(story.trace.tokens[from + i]),
          kind: "token",
          ours: isOurs,
          name: isOurs ? "token.id" : null,
          start: 1.8 + 0.15 * i,
        });
        scene.text(x + width / 2, 182, isOurs ? `token ${story.t + 1}` : String(from + i + 1), {
          anchor: "middle",
          kind: isOurs ? "is-small is-strong" : "is-small",
          start: 1.8 + 0.15 * i,
        });
        x += width + 14;
        packed += width - 18;
      });
    },
  });

  stops.push({
    name: "row",
    title: "The id picks a row of the table",
    place: "embed",
    value: (story) => write(story.tokenRow[story.c]),
    words: (story) => [
      `The table has ${GPT.draw.count(story.model.config.vocab_size)} rows of ${story.C} learned numbers. The id picks row ${story.id}: the token's vector. Our number is number ${story.c + 1} of it, `,
      ours(story.tokenRow[story.c]),
      ".",
    ],
    formula: (story) => [
      symbol("x", "row"),
      ` = table[${story.id}], number ${story.c + 1}: `,
      ours(story.tokenRow[story.c]),
    ],
    draw(scene, story) {
      const { model, id, c, C } = story;
      const columns = scene.window(c, C);
      const V = model.config.vocab_size;
      const from = Math.max(0, Math.min(V - 5, id - 2));
      const ids = Array.from({ length: Math.min(5, V) }, (_, i) => from + i);
      const most = GPT.draw.largest(
        ...ids.map((other) => columns.map((column) => row(model.tokenTable, other)[column])),
      );
      scene.header(14, columns, { count: C, ours: c });
      const height = 26;
      let picked = null;
      ids.forEach((other, i) => {
        const y = 24 + i * (height + 4);
        const values = row(model.tokenTable, other);
        const words = `${other} ${visible(GPT.app.piece(other), 9)}`;
        if (!scene.isNarrow)
          scene.text(scene.left - 12, y + 18, words, {
            anchor: "end",
            kind: other === id ? "is-label is-strong is-code" : "is-small is-code",
          });
        const cells = columns.map((column, place) =>
          scene.cell({
            x: scene.x(place),
            y,
            height,
            value: values[column],
            most,
            column,
            ours: other === id && column === c,
          }),
        );
        const all = scene.isNarrow
          ? scene.text(scene.x(columns.length) + 4, y + 18, words, {
              kind: other === id ? "is-small is-strong is-code" : "is-small is-code",
            })
          : C > columns.length &&
            scene.cell({
              x: scene.x(columns.length),
              y,
              width: scene.restWidth(),
              height,
              value: 0,
              text: "…",
              kind: "rest",
            });
        if (other === id) picked = cells;
        else
          for (const element of [...cells, all].filter(Boolean))
            scene.tween(0.5, 0.6, (p) => element.setAttribute("opacity", 1 - 0.65 * p));
        if (other === id) {
          const end = scene.x(columns.length - 1) + scene.cellWidth;
          scene.appear(
            scene.add(
              svg("rect", {
                x: scene.x(0) - 3,
                y: y - 3,
                width: end - scene.x(0) + 6,
                height: height + 6,
                rx: 7,
                class: "follow-ring",
              }),
            ),
            0.5,
          );
        }
      });
      const y = 24 + ids.length * (height + 4) + 44;
      scene.label(y, "token's vector", { kind: "is-x", start: 1.2 });
      columns.forEach((column, place) => {
        const cell = scene.cell({
          x: scene.x(place),
          y,
          value: story.tokenRow[column],
          most,
          ours: column === c,
          name: `row.${column}`,
          column,
        });
        scene.fly(cell, picked[place].at.x, picked[place].at.y, 1.2 + 0.12 * place, 0.9);
      });
      if (C > columns.length)
        scene.cell({
          x: scene.x(columns.length),
          y,
          width: scene.restWidth(),
          value: 0,
          text: "…",
          kind: "rest",
          start: 2,
        });
    },
  });

  stops.push({
    name: "position",
    title: (story) => (story.positionRow ? "The position is added" : "Nothing is added for the position"),
    place: "embed",
    value: (story) => write(story.x[story.c]),
    words: (story) =>
      story.positionRow
        ? [
            `A second table has a row for each position, counted from 0: token ${story.t + 1} has position ${story.t}. Row ${story.t} is added to the token's row. Our number is now `,
            ours(story.x[story.c]),
            ".",
          ]
        : [
            "This model has no table of positions: they act later, inside attention. So the token's row itself enters the first block. Our number is still ",
            ours(story.x[story.c]),
            ".",
          ],
    formula: ({ c, tokenRow, positionRow, x }) =>
      positionRow
        ? [
            symbol("x", "x"),
            " = row + position: ",
            write(tokenRow[c]),
            " + ",
            bracket(positionRow[c]),
            " = ",
            ours(x[c]),
          ]
        : [symbol("x", "x"), " = row: ", ours(x[c])],
    draw(scene, story) {
      const { c, C } = story;
      const columns = scene.window(c, C);
      if (!story.positionRow) {
        const rest = C > columns.length ? "…" : null;
        scene.header(14, columns, { count: C, ours: c });
        const top = 24 + (scene.isNarrow ? 16 : 0);
        const lines = [
          ["token's row", "row"],
          ["= x", "position"],
        ].map(([label, name], i) =>
          scene.row(top + 2 * i * scene.step, { label, columns, values: story.x, rest, ours: c, name, follow: true }),
        );
        lines[1].cells.forEach((cell, place) => scene.fly(cell, cell.at.x, top, 0.5 + 0.1 * place, 0.8));
        return;
      }
      addition(scene, {
        y: 14,
        columns,
        count: C,
        ours: c,
        rows: [
          { label: "token's row", values: story.tokenRow, name: "row" },
          { label: `+ position ${story.t}`, values: story.positionRow, kind: "other", name: "place" },
          { label: "= x", values: story.x, name: "position" },
        ],
      });
    },
  });
})();
