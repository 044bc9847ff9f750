// Follow one number, the stops of attention: query, dot product, softmax, weighted sum, heads.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, svg, chip, visible, percent, paint, largest, row, palette } = GPT.draw;
  const { stops, write, rounded, dotProduct, runningSum, symbol, matrix, ours, bracket } = GPT.follow;

  /** A matrix as a picture with one lit row. Returns the y below. */
  function picture(scene, { matrix, rows, columns, lit, litColumn, y, height, label, kind }) {
    const canvas = html("canvas");
    paint(canvas, matrix, columns, largest(matrix), palette("query"));
    const width = Math.min(scene.width - scene.left, scene.isNarrow ? scene.width : 420);
    const x = scene.left;
    scene.label(scene.isNarrow ? y : y + height / 2 - scene.cellHeight / 2, label, { kind: `is-${kind}` });
    scene.add(svg("image", { href: canvas.toDataURL(), x, y, width, height, preserveAspectRatio: "none", class: "follow-picture" }), y + height);
    const line = height / rows;
    scene.appear(scene.add(svg("rect", { x: x - 2, y: y + lit * line - 1.5, width: width + 4, height: line + 3, class: "follow-ring" })), 0.4);
    scene.appear(scene.add(svg("rect", { x: x + (litColumn * width) / columns - 1.5, y: y + lit * line - 2, width: width / columns + 3, height: line + 4, class: "follow-spot" })), 0.6);
    const end = x + width;
    if (!scene.isNarrow) scene.text(end + 12, y + Math.max(12, Math.min(height, (lit + 0.5) * line + 5)), `row ${lit + 1} of ${rows}`, { kind: "is-small", start: 0.4 });
    return { y: y + height, from: (column) => [x + (column * width) / columns - scene.cellWidth / 2, y + lit * line - scene.cellHeight / 2] };
  }

  stops.push({
    name: "query",
    title: "A matrix times the vector",
    place: "query",
    value: (story) => write(story.queryBefore[story.d]),
    words: (story) => [
      "Each row of the matrix ", matrix("q", "q"), ` makes one number of the query: row times vector, all ${story.C} products added up. In row ${story.d + 1} of head ${story.h + 1} our number counts most: its product is `,
      ours(story.queryRow[story.c] * story.norm1.result[story.c]), ". The sum is ", ours(story.queryBefore[story.d]), ".",
    ],
    formula: ({ d, queryBefore, queryBias }) => [
      symbol("q", "q", d + 1), " = ", matrix("q", "q"), `[${d + 1}] · norm(`, symbol("x", "x"), ")", queryBias !== null && [" + ", symbol("q", "b", d + 1)], " = ", ours(queryBefore[d]),
    ],
    draw(scene, story) {
      const { c, C, d, D } = story;
      const top = scene.isNarrow ? 18 : 4;
      const { y, from } = picture(scene, { matrix: story.queryMatrix, rows: D, columns: C, lit: d, litColumn: c, y: top, height: scene.isNarrow ? 64 : 84, label: `W_q, head ${story.h + 1}`, kind: "q" });
      dotProduct(scene, {
        y: y + 26, start: 0.9, ours: c, kind: "q", name: "query", bias: story.queryBias, total: story.queryBefore[d], label: `number ${d + 1} of the query`,
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
        ours(story.query[story.d]), ".",
      ];
    },
    formula: (story) => {
      const { angle, isFirst, other } = turn(story);
      const [own, pair] = [story.queryBefore[story.d], story.queryBefore[other]];
      return [symbol("q", "q", story.d + 1), ": ", write(own), ` × cos ${write(angle)} ${isFirst ? "−" : "+"} `, bracket(pair), ` × sin ${write(angle)} = `, ours(story.query[story.d])];
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
      const old = scene.add(svg("line", { x1: cx, y1: cy, x2: cx + (radius * a) / length, y2: cy - (radius * b) / length, class: "follow-arrow is-before" }));
      old.setAttribute("opacity", 0.5);
      const from = Math.atan2(b, a);
      scene.tween(0.8, 2.4, (p) => {
        arrow.setAttribute("x2", cx + radius * Math.cos(from + p * angle));
        arrow.setAttribute("y2", cy - radius * Math.sin(from + p * angle));
      });
      const x = scene.isNarrow ? 0 : cx + radius + 70;
      const y = scene.isNarrow ? cy + radius + 50 : cy - 70;
      const width = 84;
      [["before", story.queryBefore, 0], ["after", story.query, 3]].forEach(([words, values, start], i) => {
        scene.text(x, y + i * 70 - 6, words, { kind: "is-label is-q", start });
        [first, second].forEach((d, place) =>
          scene.cell({ x: x + place * (width + 6), y: y + i * 70, width, value: values[d], most: length, kind: "q", ours: d === story.d, name: `rotate.${words}.${d}`, start }));
      });
    },
  });

  /** The pair that rotary positions turn together with number d of the query. */
  function turn({ model, d, D, t }) {
    const isFirst = d < D / 2;
    const [first, second] = isFirst ? [d, d + D / 2] : [d - D / 2, d];
    return { first, second, isFirst, other: isFirst ? second : first, angle: t * model.config.rope_theta ** ((-2 * first) / D) };
  }

  stops.push({
    name: "score",
    title: "Query meets key: the dot product",
    place: "score",
    value: (story) => write(story.raw[story.s]),
    words: (story) => [
      "The key of ", story.s === story.t ? "the token itself" : chip(story.pieces[story.s]), ` is made like the query, with a matrix of its own. Our query number is multiplied by number ${story.d + 1} of the key; all ${story.D} products are added and divided by √${story.D}. The result is the score, `,
      ours(story.raw[story.s]), ".",
    ],
    formula: ({ raw, s, D }) => [
      "score = ", symbol("q", "q"), " · ", symbol("k", "k"), ` / √${D} = `, write(raw[s] * Math.sqrt(D)), " / ", write(Math.sqrt(D)), " = ", ours(raw[s]),
    ],
    draw(scene, story) {
      const { d, D, s, raw } = story;
      const { end } = dotProduct(scene, {
        y: 14, ours: d, kind: "product", name: "dot", total: raw[s] * Math.sqrt(D), label: "= sum",
        a: { label: `query ${visible(story.pieces[story.t], 7)}`, values: story.query, kind: "q", name: "dot.q" },
        b: { label: `key ${visible(story.pieces[s], 7)}`, values: story.key, kind: "k", name: "dot.k" },
      });
      const y = scene.height + (scene.isNarrow ? 26 : 16);
      scene.label(y, `÷ √${D} = ${write(Math.sqrt(D))}`, { start: end + 0.2 });
      const score = scene.cell({ x: scene.x(0), y, width: 1.15 * scene.cellWidth, value: raw[s], kind: "product", ours: true, name: "dot.score" });
      scene.fly(score, score.at.x, y - scene.step, end + 0.3, 0.7);
      scene.text(scene.x(0) + 1.15 * scene.cellWidth + 9, y + 20, "the score", { kind: "is-label", start: end + 0.9 });
    },
  });

  /** The attended tokens that a scene shows, in the order of the text, and those that it adds up. */
  function shownKeys({ t, weights }, most) {
    const all = Array.from({ length: t + 1 }, (_, s) => s);
    if (all.length <= most) return { keys: all, others: [] };
    const keys = [...all].sort((a, b) => weights[b] - weights[a]).slice(0, most - 1).sort((a, b) => a - b);
    return { keys, others: all.filter((s) => !keys.includes(s)) };
  }

  /** A number above 0 of any size: 3.162, 1,850, 2.1e7. */
  function power(value) {
    if (value >= 0.001 && value < 1000) return write(value);
    if (value >= 1000 && value < 1e6) return GPT.draw.count(Math.round(value));
    return value.toExponential(1).replace("-", "−").replace("e+", "e");
  }

  stops.push({
    name: "weight",
    title: "Scores become weights",
    place: "score",
    value: (story) => percent(story.weights[story.s]),
    words: (story) => [
      story.isLast ? "" : "Later tokens are masked. ",
      story.slope ? `ALiBi subtracts ${story.slope.toPrecision(2)} for each token of distance. ` : "",
      "Softmax raises e to each score and divides by the sum of all, so that the weights add up to 100%. The score ", ours(story.scores[story.s]), " becomes the weight ", ours(percent(story.weights[story.s])), ".",
    ],
    formula: ({ scores, s, weights }) => {
      const all = scores.reduce((sum, score) => sum + Math.exp(score), 0);
      return [html("span", { "data-term": "weight" }, "weight"), " = e", html("sup", {}, write(scores[s])), " / sum = ", power(Math.exp(scores[s])), " / ", power(all), " = ", ours(percent(weights[s]))];
    },
    draw(scene, story) {
      const { scores, weights, s: strongest, t, T } = story;
      const { keys, others } = shownKeys(story, scene.isNarrow ? 6 : 7);
      const [nameWidth, height, gap] = [scene.isNarrow ? 62 : 104, 26, 8];
      const box = scene.isNarrow ? 54 : 72;
      const x = [nameWidth + 6, nameWidth + box + 12, nameWidth + 2 * box + 18];
      const room = scene.width - x[2] - box - 8;
      const most = Math.max(...scores.map(Math.abs), 0.001);
      const peak = Math.max(...scores);
      ["score", "e^score", "", "weight"].forEach((words, i) =>
        words && scene.text([x[0], x[1], 0, scene.width - box][i] + box / 2, 14, words, { anchor: "middle", kind: "is-small", start: [0, 1.4, 0, 3][i] }));
      let y = 24;
      let reached = 0;
      const total = scores.reduce((sum, score) => sum + Math.exp(score), 0);
      const bottom = 24 + (keys.length + (others.length ? 1 : 0) + (T > t + 1 ? 1 : 0)) * (height + gap);
      for (const s of keys) {
        const isOurs = s === strongest;
        scene.text(nameWidth, y + 18, visible(story.pieces[s], scene.isNarrow ? 6 : 11), { anchor: "end", kind: isOurs ? "is-code is-strong" : "is-code" });
        scene.cell({ x: x[0], y, width: box, height, value: scores[s], most, kind: "product", ours: isOurs, name: `softmax.score.${s}` });
        scene.cell({ x: x[1], y, width: box, height, value: 0, text: power(Math.exp(scores[s])), kind: "rest", ours: isOurs, name: `softmax.exp.${s}`, start: 1.5 });
        scene.cell({ x: scene.width - box, y, width: box, height, value: weights[s], most: 1, text: percent(weights[s]), kind: "weight", ours: isOurs, name: `softmax.weight.${s}`, start: 3.1 });
        bar(scene, { x: x[2], y, height, room, isOurs, lengths: [0.5 * Math.abs(scores[s]) / most, Math.exp(scores[s] - peak), weights[s]], isNegative: scores[s] < 0, strip: { y: bottom + 14, from: reached } });
        reached += weights[s];
        y += height + gap;
      }
      if (others.length) {
        const rest = others.reduce((sum, s) => sum + weights[s], 0);
        scene.text(nameWidth, y + 18, scene.isNarrow ? `${others.length} more` : `${others.length} others`, { anchor: "end", kind: "is-small" });
        scene.cell({ x: scene.width - box, y, width: box, height, value: 0, text: percent(rest), kind: "rest", name: "softmax.weight.rest", start: 3.1 });
        y += height + gap;
      }
      if (T > t + 1) {
        scene.text(nameWidth, y + 18, visible(story.pieces[t + 1], scene.isNarrow ? 6 : 11), { anchor: "end", kind: "is-code is-masked" });
        scene.cell({ x: x[0], y, width: box, height, value: 0, text: "−∞", kind: "rest", start: 0.6 });
        scene.text(x[2], y + 18, T > t + 2 && !scene.isNarrow ? `masked, like the ${T - t - 1 > 2 ? `${T - t - 2} tokens` : "token"} after it` : "masked", { kind: "is-small", start: 0.6 });
        scene.cell({ x: scene.width - box, y, width: box, height, value: 0, text: "0", kind: "rest", start: 3.1 });
        y += height + gap;
      }
      if (others.length) {
        const rest = { x: x[2] + reached * room, y: bottom + 18, width: Math.max(1, (1 - reached) * room - 1), height: height - 8 };
        scene.appear(scene.add(svg("rect", { ...rest, rx: 2, class: "follow-bar is-others" })), 4.7);
      }
      scene.text(nameWidth, bottom + 31, "all", { anchor: "end", kind: "is-small", start: 4.2 });
      scene.cell({ x: x[1], y: bottom + 14, width: box, height, value: 0, text: power(total), kind: "rest", name: "softmax.sum", start: 2.2 });
      scene.appear(scene.add(svg("rect", { x: x[2], y: bottom + 14, width: room, height, rx: 4, class: "follow-frame" }), bottom + 14 + height), 4);
      scene.cell({ x: scene.width - box, y: bottom + 14, width: box, height, value: 0, text: "100%", kind: "rest", start: 4.4 });
    },
  });

  /** A bar that shows a score, then e to its power, then its weight, and whose copy joins the strip of all weights. */
  function bar(scene, { x, y, height, room, isOurs, lengths: [score, exponential, weight], isNegative, strip }) {
    const element = scene.add(svg("rect", { y: y + 4, height: height - 8, rx: 3, class: `follow-bar${isOurs ? " is-ours" : ""}` }));
    const middle = x + room / 2;
    scene.tween(1.4, 1, () => {});
    const place = (from, width) => {
      element.setAttribute("x", from);
      element.setAttribute("width", Math.max(0.5, width));
    };
    const start = [isNegative ? middle - score * room : middle, score * room];
    scene.tween(1.4, 1, (p) => place(start[0] + p * (x - start[0]), start[1] + p * (exponential * room - start[1])));
    scene.tween(2.9, 0.9, (p, isOn) => isOn && place(x, room * (exponential + p * (weight - exponential))));
    const copy = scene.add(svg("rect", { height: height - 8, rx: 2, class: `follow-bar${isOurs ? " is-ours" : ""} is-part` }));
    copy.setAttribute("width", Math.max(0.5, weight * room - 1));
    scene.tween(4, 0.9, (p, isOn) => {
      copy.setAttribute("x", x + p * strip.from * room);
      copy.setAttribute("y", y + 4 + p * (strip.y - y));
      copy.setAttribute("opacity", isOn ? 1 : 0);
    });
  }

  stops.push({
    name: "values",
    title: "The weighted sum of the values",
    place: "value",
    value: (story) => write(story.head[story.e]),
    words: (story) => [
      "Every token also made a value, with a third matrix. Each value is multiplied by its weight, and all are added. The weight ",
      ours(percent(story.weights[story.s])), " lets through that much of the value of ", story.s === story.t ? "the token itself" : chip(story.pieces[story.s]), `; number ${story.e + 1} of the sum is `, ours(story.head[story.e]), ".",
    ],
    formula: ({ e, head }) => ["out", html("sub", {}, String(e + 1)), " = Σ ", html("span", { "data-term": "weight" }, "weight"), " × ", symbol("v", "v", e + 1), " = ", ours(head[e])],
    draw(scene, story) {
      const { weights, e, D, s: strongest, head } = story;
      const { keys, others } = shownKeys(story, scene.isNarrow ? 6 : 7);
      const [nameWidth, height, gap] = [scene.isNarrow ? 58 : 104, 26, 8];
      const box = scene.isNarrow ? 52 : 74;
      const strip = scene.isNarrow ? 0 : scene.width - nameWidth - 3 * (box + 22) - 30;
      const x = { weight: nameWidth + 6, strip: nameWidth + box + 24, value: nameWidth + box + 24 + (strip ? strip + 22 : 0) };
      x.part = x.value + box + 22;
      scene.text(x.weight + box / 2, 14, "weight", { anchor: "middle", kind: "is-small" });
      if (strip) scene.text(x.strip + strip / 2, 14, `value: ${D} numbers`, { anchor: "middle", kind: "is-small is-v" });
      scene.text(x.value + box / 2, 14, `number ${e + 1}`, { anchor: "middle", kind: "is-small is-v" });
      scene.text(x.part + box / 2, 14, "product", { anchor: "middle", kind: "is-small", start: 1 });
      const most = largest(...keys.map((s) => story.value(s)));
      const written = keys.map((s) => rounded(weights[s] * story.value(s)[e]));
      const rest = rounded(head[e]) - written.reduce((all, one) => all + one, 0);
      const bottom = 24 + (keys.length + (others.length ? 1 : 0)) * (height + gap) + 16;
      const parts = [];
      keys.forEach((s, i) => {
        const [y, isOurs, value] = [24 + i * (height + gap), s === strongest, story.value(s)];
        scene.text(nameWidth, y + 18, visible(story.pieces[s], scene.isNarrow ? 6 : 11), { anchor: "end", kind: isOurs ? "is-code is-strong" : "is-code" });
        scene.cell({ x: x.weight, y, width: box, height, value: weights[s], most: 1, text: percent(weights[s]), kind: "weight", ours: isOurs, name: `values.weight.${s}` });
        if (strip) {
          scene.text(x.strip - 11, y + 18, "×", { anchor: "middle", kind: "is-sign" });
          const image = vector(scene, { values: value, x: x.strip, y, width: strip, height, most });
          scene.tween(0.8 + 0.15 * i, 0.8, (p) => {
                        const tall = height * (1 - p * (1 - Math.max(0.08, weights[s] / weights[strongest])));
            image.setAttribute("height", tall);
            image.setAttribute("y", y + (height - tall) / 2);
          });
          scene.add(svg("rect", { x: x.strip + (e * strip) / D, y, width: strip / D, height, class: "follow-spot" }));
          flyingStrip(scene, image, { y, to: bottom, start: 2.4 + 0.15 * i });
        }
        scene.cell({ x: x.value, y, width: box, height, value: value[e], most, kind: "v", name: `values.value.${s}` });
        scene.text(x.part - 11, y + 18, "=", { anchor: "middle", kind: "is-sign", start: 1 });
        parts.push(scene.cell({ x: x.part, y, width: box, height, value: weights[s] * value[e], most, kind: "v", ours: isOurs, name: `values.part.${s}`, start: 1.2 + 0.15 * i }));
      });
      if (others.length) {
        const y = 24 + keys.length * (height + gap);
        scene.text(nameWidth, y + 18, scene.isNarrow ? `${others.length} more` : `${others.length} others`, { anchor: "end", kind: "is-small" });
        scene.cell({ x: x.weight, y, width: box, height, value: 0, text: percent(others.reduce((all, s) => all + weights[s], 0)), kind: "rest" });
        parts.push(scene.cell({ x: x.part, y, width: box, height, value: rest, most, kind: "rest", name: "values.part.rest", start: 1.2 + 0.15 * keys.length }));
      }
      scene.text(nameWidth, bottom + 18, "sum", { anchor: "end", kind: "is-label is-v" });
      if (strip) {
        scene.appear(vector(scene, { values: head, x: x.strip, y: bottom, width: strip, height, most: largest(head) }), 3.4);
        scene.appear(scene.add(svg("rect", { x: x.strip + (e * strip) / D, y: bottom, width: strip / D, height, class: "follow-spot" })), 3.4);
      }
      const total = scene.cell({ x: x.part, y: bottom, width: box, height, value: head[e], most, kind: "v", ours: true, name: "values.total", start: 2.4 });
      parts.forEach((part, i) => scene.send(part, total.at.x, total.at.y, 2.4 + 0.15 * i, 0.7));
    },
  });

  /** A vector as a strip of coloured cells. */
  function vector(scene, { values, x, y, width, height, most }) {
    const canvas = html("canvas");
    paint(canvas, values, values.length, most, palette("value"));
    return scene.add(svg("image", { href: canvas.toDataURL(), x, y, width, height, preserveAspectRatio: "none", class: "follow-picture" }), y + height);
  }

  function flyingStrip(scene, image, { y, to, start }) {
    const copy = scene.add(image.cloneNode());
    scene.tween(start, 0.9, (p, isOn) => {
      copy.setAttribute("opacity", isOn && p < 1 ? 0.7 * (1 - 0.6 * p) : 0);
      copy.setAttribute("y", y + p * (to - y));
    });
  }

  stops.push({
    name: "heads",
    title: "All heads, and back to our number",
    place: "out",
    value: (story) => write(story.attentionOut[story.c]),
    words: (story) => [
      story.H > 1 ? `All ${story.H} heads do this side by side, and their sums are joined to one vector. ` : "This model has one head. ",
      `Row ${story.c + 1} of the matrix `, matrix("out"), " turns it into one number: what attention wants to add to our number, ", ours(story.attentionOut[story.c]), ".",
    ],
    formula: ({ c, attentionOut, outBias }) => ["attention = ", matrix("out"), `[${c + 1}] · (`, symbol("v", "heads"), ")", outBias !== null && " + b", " = ", ours(attentionOut[c])],
    draw(scene, story) {
      const { h, D, e, H, headParts, outRow, gathered, c } = story;
      const { end } = dotProduct(scene, {
        y: 14, ours: e, kind: "v", name: "head", total: headParts[h], label: `= head ${h + 1}`,
        a: { label: `sum, head ${h + 1}`, values: gathered.subarray(h * D, (h + 1) * D), kind: "v", name: "head.gathered" },
        b: { label: scene.isNarrow ? `row ${c + 1} of W_out` : `W_out row ${c + 1}`, values: outRow.subarray(h * D, (h + 1) * D), kind: "other", name: "head.weight" },
      });
      const y = scene.height + (scene.isNarrow ? 44 : 34);
      const heads = scene.window(h, H, scene.isNarrow ? 4 : 8);
      const rest = H > heads.length ? rounded(story.attentionOut[c]) - rounded(story.outBias || 0) - heads.reduce((all, head) => all + rounded(headParts[head]), 0) : null;
      heads.forEach((head, place) => scene.text(scene.x(place) + scene.cellWidth / 2, y - 6, `head ${head + 1}`, { anchor: "middle", kind: head === h ? "is-small is-strong" : "is-small", start: end }));
      const line = scene.row(y, { label: scene.isNarrow ? "" : "all heads", columns: heads, values: headParts, rest, kind: "v", ours: h, name: "heads.part", start: end + 0.1, every: 0.15 });
      runningSum(scene, {
        y: y + scene.step, start: end + 0.6 + 0.15 * heads.length, cells: [...line.cells, line.rest], bias: story.outBias, total: story.attentionOut[c],
        label: scene.isNarrow ? "attention adds" : "attention adds this", kind: "x", name: "heads",
      });
    },
  });

  Object.assign(GPT.follow, { picture, power });
})();
