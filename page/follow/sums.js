// Follow one number: the two drawings that most stops use, an addition number by number and a dot product term by term.

var GPT = GPT || {};
(() => {
  "use strict";
  const { write, rounded, products } = GPT.follow;
  const EVERY = 0.28; // seconds from one column to the next

  /** a + b = sum, column by column; the columns come one after the other. Returns the y below. */
  function addition(scene, { y, start = 0.4, columns, count, ours, rows: [a, b, sum] }) {
    const rest = count > columns.length ? "…" : null;
    const most = GPT.draw.largest(...[a, b, sum].map(({ values }) => columns.map((column) => values[column])));
    scene.header(y, columns, { count, ours });
    const lines = [a, b, sum].map((one, i) =>
      scene.row(y + 10 + (scene.isNarrow ? 16 : 0) + i * scene.step, {
        columns,
        rest,
        ours,
        most,
        follow: true,
        ...one,
        start: [0, start, start + 0.8][i],
        every: [0, 0, EVERY][i],
      }),
    );
    lines[2].cells.forEach((cell, place) => {
      const at = start + 0.8 + place * EVERY;
      for (const { cells } of lines.slice(0, 2)) scene.send(cells[place], cell.at.x, cell.at.y, at - 0.35, 0.5);
    });
    return scene.height;
  }

  /** The products of a and b and their sum: the running sum is shown while they fly into it. Shown are the followed number
   *  and the largest products, or `columns`. `bias` is added at the end. The cell of the others is the total minus the shown
   *  terms, so that the written numbers add up. */
  function dotProduct(
    scene,
    { y, start = 0.4, ours, a, b, columns = null, hasHeader = true, bias = null, total, label, kind = "x", name },
  ) {
    const terms = products(a.values, b.values);
    const count = terms.length;
    columns ??= scene.most(ours, terms);
    const shown = columns.reduce((all, column) => all + rounded(terms[column]), 0);
    const others = count > columns.length ? rounded(total) - shown - rounded(bias || 0) : null;
    const top = y + 10 + (scene.isNarrow ? 16 : 0);
    const rest = others === null ? null : "…";
    if (hasHeader) scene.header(y, columns, { count, ours });
    const one = scene.row(top, { columns, rest, ours, ...a, start: 0 });
    const two = scene.row(top + scene.step, { columns, rest, ...b, label: `× ${b.label}`, start });
    if (b.from)
      two.cells.forEach((cell, place) => scene.fly(cell, ...b.from(columns[place]), start + 0.06 * place, 0.8));
    const times = scene.row(top + 2 * scene.step, {
      label: "= products",
      columns,
      values: terms,
      rest: others,
      kind: "product",
      ours,
      name: `${name}.term`,
      start: start + 0.7,
      every: EVERY,
    });
    times.cells.forEach((cell, place) => {
      const at = start + 0.7 + place * EVERY;
      for (const { cells } of [one, two]) scene.send(cells[place], cell.at.x, cell.at.y, at - 0.3, 0.45);
    });
    const summing = start + 1.1 + columns.length * EVERY;
    const { end } = runningSum(scene, {
      y: top + 3 * scene.step,
      start: summing,
      cells: [...times.cells, times.rest],
      bias,
      total,
      label,
      kind,
      name,
    });
    return { y: scene.height, end };
  }

  /** Cells fly into one cell, which counts up to the total. */
  function runningSum(scene, { y, start, cells, bias = null, total, label, kind = "x", name }) {
    const parts = cells.filter(Boolean);
    const written = parts.map(({ value }) => rounded(value));
    if (bias !== null) {
      const added = start + arrival(parts).seconds;
      const cell = scene.cell({ x: scene.x(1) + 26, y, value: bias, kind: "rest", name: `${name}.bias`, start: added });
      scene.text(scene.x(1) + 13, y + 20, "+", { anchor: "middle", kind: "is-sign", start: added });
      scene.text(cell.at.x + cell.at.width + 8, y + 20, "bias", { kind: "is-small", start: added });
      written.push(rounded(bias));
    }
    const hasBias = bias !== null;
    const place = hasBias ? { x: scene.x(3) + 26, y } : { x: scene.x(0), y };
    scene.label(y, hasBias ? "sum of products" : label, { kind: `is-${kind}`, start });
    if (!hasBias) return { end: sink(scene, { ...place, start, parts, written, total, kind, name }) };
    const partial = written.slice(0, -1);
    const before = rounded(partial.reduce((all, x) => all + x, 0));
    const end = sink(scene, {
      x: scene.x(0),
      y,
      start,
      parts,
      written: partial,
      total: before,
      kind: "rest",
      name: `${name}.sum`,
      isOurs: false,
    });
    const x = scene.isNarrow ? scene.x(0) : place.x + 26;
    const below = scene.isNarrow ? y + scene.step : y;
    scene.text(x - 12, below + 20, scene.isNarrow ? "" : "=", { anchor: "end", kind: "is-sign", start: end + 0.2 });
    scene.cell({
      x,
      y: below,
      width: 1.15 * scene.cellWidth,
      value: total,
      kind,
      ours: true,
      name: `${name}.total`,
      start: end + 0.2,
    });
    scene.text(x + 1.15 * scene.cellWidth + 9, below + 20, label, { kind: `is-label is-${kind}`, start: end + 0.2 });
    return { end: end + 0.6 };
  }

  /** When parts arrive that fly into one cell: the seconds from one to the next, and until the last. */
  function arrival(parts) {
    const each = Math.min(0.3, 2.4 / parts.length);
    return { each, seconds: (parts.length - 1) * each + 0.55 };
  }

  /** The cell that the parts fly into. */
  function sink(scene, { x, y, start, parts, written, total, kind, name, isOurs = true }) {
    const { each, seconds } = arrival(parts);
    const cell = scene.cell({
      x,
      y,
      width: isOurs ? 1.15 * scene.cellWidth : scene.cellWidth,
      value: total,
      kind,
      ours: isOurs,
      name: isOurs ? `${name}.total` : name,
      start,
    });
    parts.forEach((part, i) => scene.send(part, x, y, start + i * each, 0.55));
    scene.tween(start, seconds, (p) => {
      const arrived = p >= 1 ? parts.length : Math.floor(p * parts.length);
      const sum = written.slice(0, arrived).reduce((all, value) => all + value, 0);
      cell.words.textContent = write(p >= 1 ? total : sum);
    });
    return start + seconds;
  }

  Object.assign(GPT.follow, { addition, dotProduct, runningSum, EVERY });
})();
