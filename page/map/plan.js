// What the map shows, before anything is drawn: which tokens get a line, which heads a column, and the numbers of both.
// A short text in a small model is shown completely. Otherwise neighbours are gathered: the earlier tokens in one line, and
// the layers that are not chosen in columns that show the mean of their heads.
//
//   GPT.map.lines(state, most)              [{ first, last }]: positions in the text; one token if both are equal
//   GPT.map.segments(config, room, layer)   [{ layers: [first, last], heads: [[first, last], ...] }]
//   GPT.map.weights(trace, lines, layers, heads)   (n, n): attention weights of each line (row) on each line (column)
//   GPT.map.thickest(columns, lines, token)        { column, line, weight }: the largest weight of a token on one token, in columns with .weights

var GPT = GPT || {};
(() => {
  "use strict";
  const { length, row } = GPT.draw;

  /** The last tokens have a line each; the earlier ones have one line together. If an earlier token is chosen, the lines end
   *  near it. Later tokens are left out: no chosen token can read them. */
  function lines({ tokens, token }, most) {
    const T = tokens.length;
    const single = (first, count) => Array.from({ length: count }, (_, i) => ({ first: first + i, last: first + i }));
    if (T <= most) return single(0, T);
    const end = token >= T - most + 1 ? T : Math.min(T, Math.max(token + 2, most));
    if (end <= most) return single(0, most);
    const first = end - most + 1;
    return [{ first: 0, last: first - 1 }, ...single(first, most - 1)];
  }

  /** Cuts first..last into at most `parts` ranges of about equal length. */
  function ranges(first, last, parts) {
    const count = last - first + 1;
    const number = Math.min(count, parts);
    const edge = (i) => first + Math.round((i * count) / number);
    return Array.from({ length: number }, (_, i) => [edge(i), edge(i + 1) - 1]);
  }

  /** The columns of the map, if there is room for `room` columns of heads and feed-forward networks. */
  function segments({ num_layers: L, num_heads: H }, room, layer) {
    const all = (layers, parts) => ({ layers, heads: ranges(0, H - 1, parts) });
    if (L * (H + 1) <= room) return ranges(0, L - 1, L).map((layers) => all(layers, H));
    const shown = Math.min(H, Math.max(Math.floor(room / 2) - 1, room - 2 * (L - 1) - 1, 1)); // heads of the chosen layer
    const others = Math.max(2, Math.floor((room - shown - 1) / 2)); // columns for all other layers
    const before = L > 1 ? Math.max(layer > 0 ? 1 : 0, Math.round((others * layer) / (L - 1))) : 0;
    const gathered = (first, last, parts) => (first > last ? [] : ranges(first, last, Math.max(1, parts)).map((part) => all(part, 1)));
    return [
      ...gathered(0, layer - 1, before),
      all([layer, layer], shown),
      ...gathered(layer + 1, L - 1, others - before),
    ];
  }

  /** The attention weights between lines (n, n), the mean over these layers and heads. The weight on the line of the earlier
   *  tokens is the sum of the weights on them; that line itself reads nothing. */
  function weights(trace, shown, layers, heads) {
    const n = shown.length;
    const mean = new Float32Array(n * n);
    const count = (layers[1] - layers[0] + 1) * (heads[1] - heads[0] + 1);
    for (let layer = layers[0]; layer <= layers[1]; layer += 1) {
      const all = trace.layers[layer].weights; // (H, T, T)
      const [, T, S] = all.shape;
      for (let head = heads[0]; head <= heads[1]; head += 1) {
        for (let i = 0; i < n; i += 1) {
          if (shown[i].first !== shown[i].last) continue;
          const own = row(all, head * T + shown[i].first, S);
          for (let j = 0; j <= i; j += 1) {
            for (let s = shown[j].first; s <= shown[j].last; s += 1) mean[i * n + j] += own[s] / count;
          }
        }
      }
    }
    return mean;
  }

  /** The mean length of the vectors (rows of T, C) of one line's tokens. */
  function lengthOf(matrix, { first, last }) {
    let sum = 0;
    for (let t = first; t <= last; t += 1) sum += length(row(matrix, t));
    return sum / (last - first + 1);
  }

  /** The length of the residual stream at the start and after each segment, for one line. */
  const streamLengths = (trace, line, parts) => [
    lengthOf(trace.embedded, line),
    ...parts.flatMap(({ layers }) => [
      lengthOf(trace.layers[layers[1]].afterAttention, line),
      lengthOf(trace.layers[layers[1]].output, line),
    ]),
  ];

  function thickest(columns, shown, token) {
    const from = shown.findIndex(({ first, last }) => first <= token && token <= last) * shown.length;
    const all = columns.flatMap((column) => shown.map((line, j) => ({ column, line, weight: column.weights[from + j] })));
    const single = all.filter(({ line }) => line.first === line.last); // not a line that stands for all earlier tokens
    return single.reduce((a, b) => (b.weight > a.weight ? b : a));
  }

  /** The length of the correction that a segment's feed-forward networks add to a line, the mean over its layers. */
  function correction(trace, line, { layers: [first, last] }) {
    let sum = 0;
    for (let layer = first; layer <= last; layer += 1) sum += lengthOf(trace.layers[layer].feedForwardOut, line);
    return sum / (last - first + 1);
  }

  GPT.map = { lines, segments, weights, streamLengths, correction, thickest };
})();
