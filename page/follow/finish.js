// Follow one number, the last stops: all blocks, the logit, the probability.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, svg, chip, visible, percent, largest } = GPT.draw;
  const { stops, write, dotProduct, symbol, ours, power } = GPT.follow;

  stops.push({
    name: "blocks",
    title: "Through all blocks",
    place: "blocks",
    value: ({ points }) => write(points[points.length - 1].value),
    words: ({ points, model }) => [
      model.config.num_layers > 1
        ? `The other ${model.config.num_layers === 2 ? "block does" : `${model.config.num_layers - 1} blocks do`} the same with weights of their own. `
        : "This model has a single block. ",
      `Each attention and each feed-forward network adds something to our number. It began as ${write(points[0].value)} and ends as `,
      ours(points[points.length - 1].value),
      ".",
    ],
    formula: ({ points }) => [
      symbol("x", "x"),
      ": ",
      write(points[0].value),
      points.length <= 9
        ? points.slice(1).map(({ added }) => ` ${added < 0 ? "−" : "+"} ${write(Math.abs(added))}`)
        : ` + ${points.length - 1} additions`,
      " = ",
      ours(points[points.length - 1].value),
    ],
    draw(scene, { points }) {
      const [left, right, top, bottom] = [
        scene.isNarrow ? 26 : 46,
        scene.width - (scene.isNarrow ? 26 : 40),
        44,
        scene.isNarrow ? 250 : 270,
      ];
      const values = points.map(({ value }) => value);
      const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
      const x = (i) => left + (i * (right - left)) / (points.length - 1);
      const y = (value) => bottom - ((value - low) / (high - low || 1)) * (bottom - top);
      const blocks = (points.length - 1) / 2;
      for (let block = 0; block < blocks; block += 1) {
        const [from, to] = [x(2 * block) + 2, x(2 * block + 2) - 2];
        scene.add(
          svg("rect", {
            x: from,
            y: 14,
            width: Math.max(1, to - from),
            height: bottom + 8,
            rx: 8,
            class: "follow-block",
          }),
          bottom + 22,
        );
        if (blocks <= 12)
          scene.text((from + to) / 2, 30, scene.isNarrow ? `${block + 1}` : `block ${block + 1}`, {
            anchor: "middle",
            kind: "is-small",
          });
      }
      scene.line(left, y(0), right, y(0));
      scene.text(left - 6, y(0) + 4, "0", { anchor: "end", kind: "is-small" });
      const every = 0.6;
      points.forEach((point, i) => {
        if (i) {
          const part = scene.add(svg("line", { x1: x(i - 1), y1: y(values[i - 1]), class: "follow-path" }));
          scene.tween(0.3 + (i - 1) * every, every, (p) => {
            part.setAttribute("x2", x(i - 1) + p * (x(i) - x(i - 1)));
            part.setAttribute("y2", y(values[i - 1]) + p * (y(values[i]) - y(values[i - 1])));
          });
        }
        const start = i * every;
        scene.appear(scene.add(svg("circle", { cx: x(i), cy: y(point.value), r: 4, class: "follow-dot" })), start);
        const isUp = i === 0 ? values[1] <= values[0] : point.value >= values[i - 1];
        const isNamed = points.length <= 9 || i === 0 || i === points.length - 1;
        if (isNamed)
          scene.text(x(i), y(point.value) + (isUp ? -11 : 21), write(point.value), {
            anchor: i === 0 && !scene.isNarrow ? "start" : "middle",
            kind: "is-point",
            name: `blocks.${i}`,
            start,
            size: scene.isNarrow ? 10 : null,
          });
        if (points.length <= 9)
          scene.text(x(i), bottom + 40, i === 0 ? "start" : scene.isNarrow ? (i % 2 ? "att" : "ff") : point.name, {
            anchor: "middle",
            kind: "is-small",
            start,
          });
      });
      const dot = scene.add(svg("circle", { r: 8, class: "follow-dot is-ours" }));
      points.forEach(
        (point, i) =>
          i &&
          scene.tween(0.3 + (i - 1) * every, every, (p, isOn) => {
            if (!isOn && i > 1) return;
            dot.setAttribute("cx", x(i - 1) + p * (x(i) - x(i - 1)));
            dot.setAttribute("cy", y(values[i - 1]) + p * (y(values[i]) - y(values[i - 1])));
          }),
      );
      scene.height = bottom + 50;
    },
  });

  stops.push({
    name: "logit",
    title: "One more dot product: the logit",
    place: "logits",
    value: (story) => write(story.logits[story.top[0]]),
    words: (story) => [
      `After a last norm our number is ${write(story.final[story.c])}. It is multiplied by number ${story.c + 1} of a token's row${story.model.weights["head.weight"] ? " in the output table" : " in the table from stop 2"}; all ${story.C} products add up to that token's logit. For `,
      chip(story.winner),
      " it is ",
      ours(story.logits[story.top[0]]),
      ".",
    ],
    formula: (story) => [
      "logit = norm(",
      symbol("x", "x"),
      `) · E[${story.top[0]}] = `,
      ours(story.logits[story.top[0]]),
    ],
    draw(scene, story) {
      const { c, C, lastNorm } = story;
      const columns = scene.most(c, GPT.follow.products(story.final, story.winnerRow));
      scene.header(14, columns, { count: C, ours: c });
      const top = 24 + (scene.isNarrow ? 16 : 0);
      const line = scene.row(top, {
        label: "x, at the end",
        columns,
        values: lastNorm.x,
        rest: C > columns.length ? "…" : null,
        ours: c,
        name: "logit.x",
        follow: true,
      });

      dotProduct(scene, {
        y: top + scene.step - 10 - (scene.isNarrow ? 16 : 0),
        start: 1.2,
        columns,
        hasHeader: false,
        ours: c,
        kind: "x",
        name: "logit",
        total: story.logits[story.top[0]],
        label: "= logit",
        a: { label: "last norm", values: story.final, name: "logit.norm", follow: true },
        b: { label: `row ${visible(story.winner, 9)}`, values: story.winnerRow, kind: "other", name: "logit.row" },
      });
      line.cells.forEach((cell, place) => scene.send(cell, cell.at.x, top + scene.step, 0.3 + 0.05 * place, 0.6));
    },
  });

  stops.push({
    name: "probability",
    title: "The probability, and back to the text",
    place: "bars",
    value: (story) => percent(story.probs[story.top[0]]),
    words: (story) => [
      "The same dot product with every row gives a logit for every token, and softmax turns the logits into probabilities: ",
      chip(story.winner),
      " follows with ",
      ours(percent(story.probs[story.top[0]])),
      ". If our number were 0 in the last vector, it would be ",
      html("b", { class: "follow-without" }, percent(story.without)),
      ".",
    ],
    formula: (story) => [
      "p = e",
      html("sup", {}, write(story.logits[story.top[0]])),
      " / sum of all = ",
      power(Math.exp(story.logits[story.top[0]])),
      " / ",
      power(story.total * Math.exp(story.logits[story.top[0]])),
      " = ",
      ours(percent(story.probs[story.top[0]])),
    ],
    draw(scene, story) {
      const { top, logits, probs, model, pieces, t } = story;
      const [nameWidth, height, gap, box] = [scene.isNarrow ? 86 : 138, 26, 10, scene.isNarrow ? 62 : 80];
      const x = nameWidth + box + 14;
      const room = scene.width - x - box - 8;
      const most = largest(top.map((id) => logits[id]));
      scene.text(nameWidth + 6 + box / 2, 14, "logit", { anchor: "middle", kind: "is-small" });
      scene.text(scene.width - box / 2, 14, "probability", { anchor: "middle", kind: "is-small", start: 1.2 });
      top.forEach((id, i) => {
        const [y, isOurs] = [24 + i * (height + gap), i === 0];
        scene.token(nameWidth, y, GPT.app.piece(id), isOurs, [9, 13]);
        scene.cell({
          x: nameWidth + 6,
          y,
          width: box,
          height,
          value: logits[id],
          most,
          kind: "x",
          ours: isOurs,
          name: `chance.logit.${id}`,
        });
        const bar = scene.add(
          svg("rect", { x, y: y + 4, height: height - 8, rx: 3, class: `follow-bar${isOurs ? " is-ours" : ""}` }),
        );
        const from = Math.max(0.01, logits[id] / most);
        scene.tween(1, 1.2, (p) => bar.setAttribute("width", Math.max(1, room * (from + p * (probs[id] - from)))));
        scene.cell({
          x: scene.width - box,
          y,
          width: box,
          height,
          value: probs[id],
          most: 1,
          text: percent(probs[id]),
          kind: "weight",
          ours: isOurs,
          name: `chance.prob.${id}`,
          start: 1.6 + 0.1 * i,
        });
      });
      const rest = model.config.vocab_size - top.length;
      const y = 24 + top.length * (height + gap);
      if (rest > 0) {
        const share = 1 - top.reduce((all, id) => all + probs[id], 0);
        scene.text(nameWidth, y + 18, scene.others(rest), { anchor: "end", kind: "is-small" });
        scene.cell({
          x: scene.width - box,
          y,
          width: box,
          height,
          value: 0,
          text: percent(Math.max(0, share)),
          kind: "rest",
          name: "chance.prob.rest",
          start: 2.2,
        });
      }
      ending(scene, { y: y + 60, story, from: [nameWidth + 6, 24], pieces, t });
    },
  });

  /** The end of the text, and the token that is most likely after it. */
  function ending(scene, { y, story, pieces, t }) {
    const shown = pieces.slice(Math.max(0, t - (scene.isNarrow ? 2 : 4)), t + 1);
    const width = (piece) => Math.max(30, 9 * Array.from(visible(piece, 10)).length + 14);
    let x = Math.max(0, (scene.width - [...shown, story.winner].reduce((all, piece) => all + width(piece) + 6, 0)) / 2);
    for (const piece of shown) {
      scene
        .cell({ x, y, width: width(piece), value: 0, text: visible(piece, 10), kind: "token" })
        .classList.add("is-letters");
      x += width(piece) + 6;
    }
    const cell = scene.cell({
      x,
      y,
      width: width(story.winner),
      value: 0,
      text: visible(story.winner, 10),
      kind: "token",
      ours: true,
      name: "chance.token",
    });
    cell.classList.add("is-letters");
    scene.fly(cell, scene.isNarrow ? 10 : 60, 22, 2.8, 1.1);
  }
})();
