// From a vector to an answer: a linear head for reviews, inner products for passages.

// The probability that a review is positive.
export function positive(head, vector) {
  const score = head.weight.reduce((sum, weight, i) => sum + weight * vector[i], head.bias);
  return 1 / (1 + Math.exp(-score));
}

// One scale a passage as float32, then its integers: `passages` rows of int8.
export function readVectors(buffer, passages) {
  return { scales: new Float32Array(buffer, 0, passages), rows: new Int8Array(buffer, 4 * passages) };
}

// The `most` nearest passages as [number, cosine], the nearest first.
export function nearest({ scales, rows }, vector, most) {
  const width = vector.length;
  const cosines = Array.from(scales, (scale, passage) => {
    let sum = 0;
    for (let i = 0, at = passage * width; i < width; i++) sum += rows[at + i] * vector[i];
    return [passage, sum * scale];
  });
  return cosines.sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, most);
}
