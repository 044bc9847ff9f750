// Where the parts of the map are: from the size of the stage to places along (u) and across (v) the streams, in pixels. On a
// wide stage the streams run from left to right, on a narrow one from top to bottom.

(() => {
  "use strict";
  const WIDE = 714; // pixels: a narrower stage is drawn upright
  const TARGET = 24; // a head's column is at least so wide, for fingers
  const LEAST = 11; // for a feed-forward network and the gap after it
  const LINES = { wide: 11, upright: 7 };
  const BARS = { wide: 8, upright: 5 };

  /** Sizes that do not depend on the text. */
  function frame(width, height) {
    const isUpright = width < WIDE;
    if (isUpright) {
      return { isUpright, width, height, most: LINES.upright, bars: BARS.upright, chip: 22, strip: 9, start: 36, end: height - 94,
        fan: [height - 92, height - 64], across: [38, width - 2], disc: 6, rest: "other" };
    }
    const isSmall = width < 860;
    const [chip, strip] = isSmall ? [58, 30] : [86, 42];
    const bars = isSmall ? 140 : Math.min(220, 0.2 * width);
    const fan = isSmall ? 40 : Math.min(96, 0.09 * width);
    return { isUpright, width, height, most: LINES.wide, bars: BARS.wide, chip, strip, start: chip + strip + (isSmall ? 12 : 16), end: width - bars - fan - 6,
      fan: [width - bars - fan, width - bars], across: [46, height - 4], disc: isSmall ? 7 : 8.5, rest: isSmall ? "others" : "all others" };
  }

  /** How many columns of heads and feed-forward networks fit: all of them, or so many of equal width. */
  function room({ start, end }, { num_layers: L, num_heads: H }) {
    const fits = L * (H * TARGET + LEAST) <= end - start;
    return fits ? L * (H + 1) : Math.max(6, Math.floor((end - start) / TARGET));
  }

  /** Where each segment's columns are: heads as wide as fits, then a column for the feed-forward network. */
  function place({ start, end, isUpright }, segments) {
    const heads = segments.reduce((sum, { heads }) => sum + heads.length, 0);
    const usual = isUpright ? [15, 4] : [Math.min(30, (end - start) / 25, 150 / segments.length), Math.min(16, (end - start) / 40, 64 / segments.length)];
    const spare = Math.max(LEAST, (end - start - heads * TARGET) / segments.length); // without narrow heads
    const shrink = Math.min(1, spare / (usual[0] + usual[1]));
    const [disc, gap] = usual.map((size) => size * shrink);
    const free = end - start - segments.length * (disc + gap);
    const width = Math.min(isUpright ? 28 : 110, free / heads);
    const slack = (free - width * heads) / segments.length;
    let u = start + gap / 2;
    return segments.map(({ heads }) => {
      const from = u;
      const columns = heads.map((_, i) => from + i * width);
      u += heads.length * width;
      const node = u + (disc + slack) / 2;
      u += disc + slack + gap;
      return { from, columns, width, headsEnd: from + heads.length * width, node, to: u - gap };
    });
  }

  /** The lines' places across the streams: evenly, but not too far apart, and in the middle. */
  function across({ across: [from, to], isUpright }, count) {
    const gap = Math.min(isUpright ? 54 : 64, (to - from) / count);
    const first = (from + to) / 2 - (gap * (count - 1)) / 2;
    return Array.from({ length: count }, (_, i) => first + i * gap);
  }

  /** The bars' places across the streams, over the whole stage. */
  function bars({ isUpright, width, height, across: [from] }, count) {
    const [low, high] = isUpright ? [0, width] : [from - 30, height];
    const gap = Math.min(isUpright ? Infinity : 50, (high - low) / count);
    const first = (low + high) / 2 - (gap * (count - 1)) / 2;
    return Array.from({ length: count }, (_, i) => first + i * gap);
  }

  /** Places an element of the overlay: along and across the streams, with sizes. */
  function put(element, isUpright, u, v, along, wide) {
    const [left, top, width, height] = isUpright ? [v, u, wide, along] : [u, v, along, wide];
    Object.assign(element.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
  }

  GPT.map.layout = { frame, room, place, across, bars, put };
})();
