// Follow one number, attention's first stops: the query, its rotation, and the dot product with a key.

var GPT = GPT || {};
(() => {
  "use strict";
  const { svg, chip, visible, largest } = GPT.draw;
  const { stops, write, dotProduct, symbol, matrix, ours, bracket } = GPT.follow;

  /** A matrix as a picture with one lit row. Returns the y below. */
  function picture(scene, { matrix, rows, columns, lit, litColumn, y, height, label, kind }) {
    const width = Math.min(scene.width - scene.left, scene.isNarrow ? scene.width : 420);
    const x = scene.left;
    scene.label(scene.isNarrow ? y : y + height / 2 - scene.cellHeight / 2, label, { kind: `is-${kind}` });
    scene.picture({ values: matrix, columns, most: largest(matrix), colour: "query", x, y, width, height });
    const line = height / rows;
    scene.appear(
      scene.add(
        svg("rect", { x: x - 2, y: y + lit * line - 1.5, width: width + 4, height: line + 3, class: "follow-ring" }),
      ),
      0.4,
    );
    scene.appear(
      scene.add(
        svg("rect", {
          x: x + (litColumn * width) / columns - 1.5,
          y: y + lit * line - 2,
          width: width / columns + 3,
          height: line + 4,
          class: "follow-spot",
        }),
      ),
      0.6,
    );
    const end = x + width;
    if (!scene.isNarrow)
      scene.text(end + 12, y + Math.max(12, Math.min(height, (lit + 0.5) * line + 5)), `row ${lit + 1} of ${rows}`, {
        kind: "is-small",
        start: 0.4,
      });
    return {
      y: y + height,
      from: (column) => [x + (column * width) / columns - scene.cellWidth / 2, y + lit * line - scene.cellHeight / 2],
    };
  }

  stops.push({
    name: "query",
    title: "A matrix times the vector",
    place: "query",
    value: (story) => write(story.queryBefore[story.d]),
    words: (story) => [
      "Each row of the matrix ",
      matrix("q", "q"),
      ` makes one number of the query: row times vector, all ${story.C} products added up. Our number takes part in each of them. Of the numbers of head ${story.h + 1} it changes number ${story.d + 1} most: its product `,
      ours(story.queryRow[story.c] * story.norm1.result[story.c]),
      " is one part of the sum ",
      ours(story.queryBefore[story.d]),
      `, together with the products of the other ${story.C - 1} numbers. From here on we follow that sum.`,
    ],
    formula: ({ d, queryBefore, queryBias }) => [
      symbol("q", "q", d + 1),
      " = ",
      matrix("q", "q"),
      `[${d + 1}] · norm(`,
      symbol("x", "x"),
      ")",
      queryBias !== null && [" + ", symbol("q", "b", d + 1)],
      " = ",
      ours(queryBefore[d]),
    ],
    draw(scene, story) {
      const { c, C, d, D } = story;
      const top = scene.isNarrow ? 18 : 4;
      const { y, from } = picture(scene, {
        matrix: story.queryMatrix,
        rows: D,
        columns: C,
        lit: d,
        litColumn: c,
        y: top,
        height: scene.isNarrow ? 64 : 84,
        label: `W_q, head ${story.h + 1}`,
        kind: "q",
      });
      dotProduct(scene, {
        y: y + 26,
        start: 0.9,
        ours: c,
        kind: "q",
        name: "query",
        bias: story.queryBias,
        total: story.queryBefore[d],
        label: `number ${d + 1} of the query`,
        a: { label: "norm(x)", values: story.norm1.result, kind: "x", name: "query.x", follow: true },
        b: { label: `row ${d + 1}`, values: story.queryRow, kind: "q", name: "query.weight", from },
      });
    },
  });

  stops.push({
    name: "rotate",
    applies: (model) => model.config.position === "rotary",
    title: "The position turns the query",
    place: "query",
    value: (story) => write(story.query[story.d]),
    words: (story) => {
      const { other, angle } = turn(story);
      return [
        `Rotary positions take the query's numbers in pairs, here ${Math.min(story.d, other) + 1} and ${Math.max(story.d, other) + 1}, as the two coordinates of an arrow. The arrow is turned by position × frequency, ${write(angle)} radians; keys are turned in the same way. Our number becomes `,
        ours(story.query[story.d]),
        ".",
      ];
    },
    formula: (story) => {
      const { angle, isFirst, other } = turn(story);
      const [own, pair] = [story.queryBefore[story.d], story.queryBefore[other]];
      return [
        symbol("q", "q", story.d + 1),
        ": ",
        write(own),
        ` × cos ${write(angle)} ${isFirst ? "−" : "+"} `,
        bracket(pair),
        ` × sin ${write(angle)} = `,
        ours(story.query[story.d]),
      ];
    },
    draw(scene, story) {
      const { first, second, angle } = turn(story);
      const size = Math.min(scene.width, 300);
      const [cx, cy, radius] = [scene.isNarrow ? scene.width / 2 : scene.left + size / 2, size / 2 + 10, size / 2 - 34];
      const [a, b] = [story.queryBefore[first], story.queryBefore[second]];
      const length = Math.hypot(a, b) || 1;
      scene.add(svg("circle", { cx, cy, r: radius, class: "follow-line is-circle" }), cy + radius + 20);
      scene.line(cx - radius - 16, cy, cx + radius + 16, cy);
      scene.line(cx, cy - radius - 16, cx, cy + radius + 16);
      const arrow = scene.add(svg("line", { x1: cx, y1: cy, class: "follow-arrow is-q" }));
      const old = scene.add(
        svg("line", {
          x1: cx,
          y1: cy,
          x2: cx + (radius * a) / length,
          y2: cy - (radius * b) / length,
          class: "follow-arrow is-before",
        }),
      );
      old.setAttribute("opacity", 0.5);
      const from = Math.atan2(b, a);
      scene.tween(0.8, 2.4, (p) => {
        arrow.setAttribute("x2", cx + radius * Math.cos(from + p * angle));
        arrow.setAttribute("y2", cy - radius * Math.sin(from + p * angle));
      });
      const x = scene.isNarrow ? 0 : cx + radius + 70;
      const y = scene.isNarrow ? cy + radius + 50 : cy - 70;
      const width = 84;
      [
        ["before", story.queryBefore, 0],
        ["after", story.query, 3],
      ].forEach(([words, values, start], i) => {
        scene.text(x, y + i * 70 - 6, words, { kind: "is-label is-q", start });
        [first, second].forEach((d, place) =>
          scene.cell({
            x: x + place * (width + 6),
            y: y + i * 70,
            width,
            value: values[d],
            most: length,
            kind: "q",
            ours: d === story.d,
            name: `rotate.${words}.${d}`,
            start,
          }),
        );
      });
    },
  });

  /** The pair that rotary positions turn together with number d of the query. */
  function turn({ model, d, D, t }) {
    const isFirst = d < D / 2;
    const [first, second] = isFirst ? [d, d + D / 2] : [d - D / 2, d];
    return {
      first,
      second,
      isFirst,
      other: isFirst ? second : first,
      angle: t * model.config.rope_theta ** ((-2 * first) / D),
    };
  }

  stops.push({
    name: "score",
    title: "Query meets key: the dot product",
    place: "score",
    value: (story) => write(story.raw[story.s]),
    words: (story) => [
      "The key of ",
      story.s === story.t ? "the token itself" : chip(story.pieces[story.s]),
      ` is made like the query, with another matrix. Our query number is multiplied by number ${story.d + 1} of it. We now follow the sum that this product went into, divided by √${story.D}: the score, `,
      ours(story.raw[story.s]),
      ".",
    ],
    formula: ({ raw, s, D }) => [
      "score = ",
      symbol("q", "q"),
      " · ",
      symbol("k", "k"),
      ` / √${D} = `,
      write(raw[s] * Math.sqrt(D)),
      " / ",
      write(Math.sqrt(D)),
      " = ",
      ours(raw[s]),
    ],
    draw(scene, story) {
      const { d, D, s, raw } = story;
      const { end } = dotProduct(scene, {
        y: 14,
        ours: d,
        kind: "product",
        name: "dot",
        total: raw[s] * Math.sqrt(D),
        label: "= sum",
        a: { label: `query ${visible(story.pieces[story.t], 7)}`, values: story.query, kind: "q", name: "dot.q" },
        b: { label: `key ${visible(story.pieces[s], 7)}`, values: story.key, kind: "k", name: "dot.k" },
      });
      const y = scene.height + (scene.isNarrow ? 26 : 16);
      scene.label(y, `÷ √${D} = ${write(Math.sqrt(D))}`, { start: end + 0.2 });
      const score = scene.cell({
        x: scene.x(0),
        y,
        width: 1.15 * scene.cellWidth,
        value: raw[s],
        kind: "product",
        ours: true,
        name: "dot.score",
      });
      scene.fly(score, score.at.x, y - scene.step, end + 0.3, 0.7);
      scene.text(scene.x(0) + 1.15 * scene.cellWidth + 9, y + 20, "the score", { kind: "is-label", start: end + 0.9 });
    },
  });
})();
