// Follow one number: the stage. A scene is an SVG drawing and a list of movements; seek(seconds) puts everything where it
// is at that time, so a scene can be played, stopped, or shown at once as it ends.

var GPT = GPT || {};
(() => {
  "use strict";
  const { html, svg, number, paint, palette, visible } = GPT.draw;
  const DIGITS = 3;
  const SHOW = 0.35; // seconds in which something appears

  /** A number as all stops write it. */
  const write = (value) => number(value, DIGITS);

  /** The number as it is written: sums of these agree with what the reader sees. */
  const rounded = (value) => Number(value.toFixed(DIGITS));

  /** W_q and e^score with a lower or raised second part. */
  function raised(words) {
    const [before, sign, name, after] = words.split(/(?<=[We])([_^])(\w+)/);
    if (!sign) return words;
    const by = sign === "_" ? 3 : -5;
    return [before, svg("tspan", { dy: by, "font-size": "80%" }, name), svg("tspan", { dy: -by }, after || "\u200b")];
  }

  const smooth = (p) => p * p * (3 - 2 * p);

  class Scene {
    constructor(width) {
      Object.assign(this, { width, isNarrow: width < 560, tweens: [], length: 0, height: 0 });
      this.svg = svg("svg", { class: "follow-scene", "aria-hidden": "true" });
      this.columns = this.isNarrow ? 4 : width < 760 ? 6 : 8; // how many numbers of a vector are shown
      this.left = this.isNarrow ? 0 : 138;
      this.gap = this.isNarrow ? 3 : 5;
      this.cellWidth = Math.min(84, (width - this.left - this.gap * (this.columns + 1)) / (this.columns + 1.5));
      this.cellHeight = 30;
    }

    /** Ends the drawing: sets its size. */
    finish() {
      this.svg.setAttribute("width", this.width);
      this.svg.setAttribute("height", this.height);
      this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
      this.seek(this.length);
      return this;
    }

    /** Calls run(p) with p from 0 to 1 between `start` and `start + seconds`. */
    tween(start, seconds, run) {
      this.tweens.push({ start, seconds, run });
      this.length = Math.max(this.length, start + seconds);
    }

    seek(time) {
      for (const { start, seconds, run } of this.tweens) {
        run(smooth(Math.max(0, Math.min(1, (time - start) / seconds))), time >= start);
      }
    }

    add(element, bottom = 0) {
      this.svg.append(element);
      this.height = Math.max(this.height, bottom);
      return element;
    }

    /** Lets an element appear at `start`; 0 or null: it is there from the beginning. */
    appear(element, start) {
      if (start) this.tween(start, SHOW, (p) => element.setAttribute("opacity", p));
      return element;
    }

    text(x, y, words, { anchor = "start", kind = "", start = 0, name = null, size = null } = {}) {
      const element = svg(
        "text",
        {
          x,
          y,
          "text-anchor": anchor,
          class: `follow-text ${kind}`,
          "data-number": name,
          style: size && `font-size: ${size}px`,
        },
        raised(words),
      );
      return this.appear(this.add(element, y + 6), start);
    }

    line(x1, y1, x2, y2, { kind = "", start = 0 } = {}) {
      return this.appear(this.add(svg("line", { x1, y1, x2, y2, class: `follow-line ${kind}` })), start);
    }

    /** A number in a box. `kind` q, k, v or x colours its border; `ours` marks the followed number; `column` is the
     *  coordinate that a press follows. */
    cell({
      x,
      y,
      width = this.cellWidth,
      height = this.cellHeight,
      value,
      text = write(value),
      most = 1,
      kind = "x",
      ours = false,
      name = null,
      start = 0,
      column = null,
    }) {
      const part = Math.min(1, Math.abs(value) / most);
      const box = svg("rect", {
        width,
        height,
        rx: 5,
        class: `follow-box is-${kind}${ours ? " is-ours" : ""} ${value < 0 ? "is-minus" : "is-plus"}`,
        style: ours ? null : `fill-opacity: ${(0.42 * part).toFixed(3)}`,
      });
      const words = svg(
        "text",
        { x: width / 2, y: height / 2 + 4.5, "text-anchor": "middle", class: "follow-value", "data-number": name },
        text,
      );
      const group = svg(
        "g",
        { transform: `translate(${x} ${y})`, class: `follow-cell${ours ? " is-ours" : ""}` },
        svg("rect", { width, height, rx: 5, class: "follow-back" }),
        box,
        words,
      );
      if (column !== null) group.dataset.column = column;
      Object.assign(group, { at: { x, y, width, height }, words, value });
      this.appear(this.add(group, y + height), start);
      return group;
    }

    /** Numbers as a picture, one cell of colour each, row by row; most: the end of the colour scale. */
    picture({ values, columns, most, colour, x, y, width, height }) {
      const canvas = html("canvas");
      paint(canvas, values, columns, most, palette(colour));
      const place = { x, y, width, height, preserveAspectRatio: "none", class: "follow-picture" };
      return this.add(svg("image", { href: canvas.toDataURL(), ...place }), y + height);
    }

    /** The token of a line of boxes, to the left of x. */
    token(x, y, piece, isOurs, letters = [6, 11]) {
      const kind = isOurs ? "is-code is-strong" : "is-code";
      return this.text(x, y + 18, visible(piece, letters[this.isNarrow ? 0 : 1]), { anchor: "end", kind });
    }

    /** How many others there are, in words. */
    others(count) {
      return `${GPT.draw.count(count)} ${this.isNarrow ? "more" : "others"}`;
    }

    /** Moves a cell from (x, y) to its place. It is not seen before `start`, unless `isThere`. */
    fly(cell, x, y, start, seconds = 0.7, isThere = false) {
      const { x: toX, y: toY } = cell.at;
      this.tween(start, seconds, (p, isOn) => {
        cell.setAttribute("transform", `translate(${x + p * (toX - x)} ${y + p * (toY - y)})`);
        if (!isThere) cell.setAttribute("opacity", isOn ? 1 : 0);
      });
    }

    /** Sends a copy of a cell to (x, y), where it vanishes. */
    send(cell, x, y, start, seconds = 0.6) {
      const copy = cell.cloneNode(true);
      copy.querySelectorAll("[data-number]").forEach((element) => element.removeAttribute("data-number"));
      copy.removeAttribute("data-column");
      this.add(copy);
      const { x: fromX, y: fromY } = cell.at;
      this.tween(start, seconds, (p, isOn) => {
        copy.setAttribute("transform", `translate(${fromX + p * (x - fromX)} ${fromY + p * (y - fromY)})`);
        copy.setAttribute("opacity", isOn && p < 1 ? 1 - 0.5 * p : 0);
      });
    }

    /** The columns around `middle` that are shown of `count`. */
    window(middle, count, shown = this.columns) {
      if (count <= shown + 1) return Array.from({ length: count }, (_, i) => i);
      const from = Math.max(0, Math.min(count - shown, middle - Math.floor((shown - 1) / 2)));
      return Array.from({ length: shown }, (_, i) => from + i);
    }

    /** The columns of the followed number and of the largest `terms`, in their order. */
    most(ours, terms, shown = this.columns) {
      if (terms.length <= shown + 1) return this.window(ours, terms.length);
      const others = GPT.draw.best(
        terms.map((term, i) => (i === ours ? -1 : Math.abs(term))),
        shown - 1,
      );
      return [...others, ours].sort((a, b) => a - b);
    }

    x(place) {
      return this.left + place * (this.cellWidth + this.gap);
    }

    /** The numbers of the columns, above them. */
    header(y, columns, { count, ours, start = 0, what = "number" }) {
      if (!this.isNarrow) this.text(this.left - 12, y, what, { anchor: "end", kind: "is-small", start });
      columns.forEach((column, place) =>
        this.text(this.x(place) + this.cellWidth / 2, y, String(column + 1), {
          anchor: "middle",
          kind: column === ours ? "is-small is-strong" : "is-small",
          start,
        }),
      );
      const others = count - columns.length;
      if (others > 0) {
        this.text(this.x(columns.length) + this.restWidth() / 2, y, this.others(others), {
          anchor: "middle",
          kind: "is-small",
          start,
        });
      }
    }

    restWidth() {
      return 1.5 * this.cellWidth;
    }

    /** The vertical space from one row of cells to the next. */
    get step() {
      return this.cellHeight + (this.isNarrow ? 26 : 16);
    }

    /** The label of a row: on its left, or above it in a narrow window. */
    label(y, words, { kind = "", start = 0 } = {}) {
      if (this.isNarrow) return this.text(0, y - 6, words, { kind: `is-label ${kind}`, start });
      return this.text(this.left - 12, y + this.cellHeight / 2 + 5, words, {
        anchor: "end",
        kind: `is-label ${kind}`,
        start,
      });
    }

    /** A row of numbers: values[column] for each column, then `rest` (a number or words) for the others. */
    row(
      y,
      {
        label,
        columns,
        values,
        rest = null,
        kind = "x",
        ours = null,
        most = null,
        name = null,
        start = 0,
        every = 0,
        follow = false,
      },
    ) {
      const scale = most || GPT.draw.largest(columns.map((column) => values[column]));
      this.label(y, label, { kind: `is-${kind}`, start });
      const cells = columns.map((column, place) =>
        this.cell({
          x: this.x(place),
          y,
          value: values[column],
          most: scale,
          kind,
          ours: column === ours,
          name: name && `${name}.${column}`,
          start: start && start + place * every,
          column: follow ? column : null,
        }),
      );
      if (rest === null) return { cells, rest: null };
      const at = {
        x: this.x(columns.length),
        y,
        width: this.restWidth(),
        most: scale,
        start: start && start + columns.length * every,
      };
      const isNumber = typeof rest === "number";
      return {
        cells,
        rest: this.cell({
          ...at,
          value: isNumber ? rest : 0,
          text: isNumber ? write(rest) : rest,
          kind: "rest",
          name: isNumber && name ? `${name}.rest` : null,
        }),
      };
    }
  }

  Object.assign(GPT.follow, { Scene, write, rounded });
})();
