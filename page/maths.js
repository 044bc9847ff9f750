// The operations of a transformer on flat arrays of 32-bit numbers.
//
// A matrix (rows, columns) is stored row by row: entry (i, j) is number i * columns + j. Sums are computed in
// JavaScript's own 64-bit numbers and rounded to 32 bits once, when they are stored.

var GPT = GPT || {};
GPT.engine("maths", (GPT) => {
  "use strict";

  /** A Float32Array of zeros with a shape: tensor(2, 3).shape is [2, 3]. */
  function tensor(...shape) {
    const size = shape.reduce((product, length) => product * length, 1);
    return withShape(new Float32Array(size), shape);
  }

  function withShape(data, shape) {
    data.shape = shape;
    return data;
  }

  /** The dot product of n numbers of a, starting at index i, with n numbers of b, starting at index j. */
  function dot(a, i, b, j, n) {
    let [one, two, three, four] = [0, 0, 0, 0]; // four independent sums: none waits for the one before
    const whole = n - (n % 4);
    for (let m = 0; m < whole; m += 4) {
      one += a[i + m] * b[j + m];
      two += a[i + m + 1] * b[j + m + 1];
      three += a[i + m + 2] * b[j + m + 2];
      four += a[i + m + 3] * b[j + m + 3];
    }
    for (let m = whole; m < n; m += 1) one += a[i + m] * b[j + m];
    return one + two + three + four;
  }

  /** x (T, inputs) times the rows of weight (outputs, inputs), plus bias (outputs) if there is one -> (T, outputs). */
  function linear(x, weight, bias) {
    const [outputs, inputs] = weight.shape;
    const T = x.length / inputs;
    const y = tensor(T, outputs);
    for (let o = 0; o < outputs; o += 1) {
      const constant = bias ? bias[o] : 0;
      for (let t = 0; t < T; t += 1) y[t * outputs + o] = constant + dot(x, t * inputs, weight, o * inputs, inputs);
    }
    return y;
  }

  /** The sum of two arrays of one shape, number by number. */
  function add(a, b) {
    const sum = tensor(...a.shape);
    for (let i = 0; i < a.length; i += 1) sum[i] = a[i] + b[i];
    return sum;
  }

  /** Each row of x (T, C) minus its mean, over its standard deviation; then times weight, plus bias. */
  function layerNorm(x, weight, bias, eps) {
    const C = weight.length;
    const y = tensor(x.length / C, C);
    for (let row = 0; row < x.length; row += C) {
      let mean = 0;
      for (let c = 0; c < C; c += 1) mean += x[row + c] / C;
      let variance = 0;
      for (let c = 0; c < C; c += 1) variance += (x[row + c] - mean) ** 2 / C;
      const scale = 1 / Math.sqrt(variance + eps);
      for (let c = 0; c < C; c += 1) y[row + c] = (x[row + c] - mean) * scale * weight[c] + (bias ? bias[c] : 0);
    }
    return y;
  }

  /** Each row of x (T, C) over the root of its mean square, times weight. */
  function rmsNorm(x, weight, eps) {
    const C = weight.length;
    const y = tensor(x.length / C, C);
    for (let row = 0; row < x.length; row += C) {
      const scale = 1 / Math.sqrt(dot(x, row, x, row, C) / C + eps);
      for (let c = 0; c < C; c += 1) y[row + c] = x[row + c] * scale * weight[c];
    }
    return y;
  }

  /** Probabilities that sum to 1: e^x over the sum of all e^x. Subtracting the largest x first prevents overflow. */
  function softmax(x) {
    let largest = -Infinity;
    for (let i = 0; i < x.length; i += 1) largest = Math.max(largest, x[i]);
    let sum = 0;
    for (let i = 0; i < x.length; i += 1) sum += Math.exp(x[i] - largest);
    const probs = tensor(x.length);
    for (let i = 0; i < x.length; i += 1) probs[i] = Math.exp(x[i] - largest) / sum;
    return probs;
  }

  /** The error function, by a series whose terms all have one sign, so that nothing cancels:
   *  erf(x) = 2 / sqrt(pi) * e^(-x^2) * (x + 2 x^3 / 3 + 4 x^5 / 15 + 8 x^7 / 105 + ...) */
  function erf(x) {
    if (Math.abs(x) > 4.5) return Math.sign(x); // exact in 32 bits
    let [term, sum] = [x, x];
    for (let odd = 3; Math.abs(term) > 1e-9 * Math.abs(sum); odd += 2) {
      term *= (2 * x * x) / odd;
      sum += term;
    }
    return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
  }

  /** The activation functions of the feed-forward network, for one number. For swiglu it is the function of the gate. */
  const activations = {
    relu: (x) => Math.max(0, x),
    gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
    gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
    swiglu: (x) => x / (1 + Math.exp(-x)),
  };

  /** The bytes that a base64 text stands for. */
  function bytesOf(base64) {
    const characters = atob(base64);
    const bytes = new Uint8Array(characters.length);
    for (let i = 0; i < bytes.length; i += 1) bytes[i] = characters.charCodeAt(i);
    return bytes;
  }

  GPT.maths = { tensor, withShape, dot, linear, add, layerNorm, rmsNorm, softmax, erf, activations, bytesOf };
});
