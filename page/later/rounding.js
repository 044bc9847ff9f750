// Quantisation: every matrix is rounded to whole numbers of few bits, with one scale for each row, as in
// src/transformer/kernels/int8.py. 8 bits: -127 to 127; 4 bits: -7 to 7; 2 bits: -1, 0 and 1.

var GPT = GPT || {};
GPT.engine("rounding", (GPT) => {
  "use strict";

  /** The largest whole number of that many bits, with a sign. */
  const largest = (bits) => 2 ** (bits - 1) - 1;

  /** A matrix (rows, columns) rounded row by row, and multiplied by the scale again. */
  function rounded(matrix, bits) {
    const [rows, columns] = matrix.shape;
    const result = GPT.maths.tensor(rows, columns);
    for (let from = 0; from < matrix.length; from += columns) {
      let most = 0;
      for (let i = from; i < from + columns; i += 1) most = Math.max(most, Math.abs(matrix[i]));
      const scale = Math.fround(most / largest(bits)) || 1; // a row of zeros stays zeros
      for (let i = from; i < from + columns; i += 1) result[i] = Math.round(matrix[i] / scale) * scale;
    }
    return result;
  }

  /** A copy of the model with rounded matrices; norms and biases stay as they are. */
  function quantised(model, bits) {
    const other = Object.create(model);
    const all = Object.entries(model.weights);
    other.take(Object.fromEntries(all.map(([name, weight]) => [name, weight.shape.length === 2 ? rounded(weight, bits) : weight])));
    return other;
  }

  /** The size of the weights in bytes: `bits` for each number of a matrix, and 4 bytes for each scale and all other numbers. */
  function bytes(model, bits) {
    let all = 0;
    for (const { length, shape } of Object.values(model.weights)) {
      all += shape.length === 2 && bits < 32 ? (length * bits) / 8 + 4 * shape[0] : 4 * length;
    }
    return all;
  }

  let kept = { bits: 0, model: null };

  /** A job: reads the tokens with rounded matrices. Gives their losses, and logProbs (V) after token `at`. */
  function* run(model, { tokens, bits, at }) {
    if (kept.bits !== bits) kept = { bits, model: quantised(model, bits) };
    const { losses, logProbs } = GPT.ablation;
    const trace = kept.model.run(tokens);
    yield { losses: losses(trace), logProbs: logProbs(trace.logits(at)) };
  }

  GPT.rounding = { largest, rounded, quantised, bytes, run };
});
