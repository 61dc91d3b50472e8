// Draw images by an exported model: the random numbers of PyTorch, and the steps that the export wrote as numbers.
"use strict";

// The Mersenne Twister of Matsumoto & Nishimura 1998, with the seed that PyTorch gives it.
class Twister {
  constructor(seed) {
    this.state = new Uint32Array(624);
    this.state[0] = seed % 2 ** 32;
    for (let i = 1; i < 624; i++) {
      const before = this.state[i - 1] ^ (this.state[i - 1] >>> 30);
      this.state[i] = Math.imul(1812433253, before) + i;
    }
    this.place = 624;
  }

  twist() {
    const s = this.state;
    for (let i = 0; i < 624; i++) {
      const y = (s[i] & 0x80000000) | (s[(i + 1) % 624] & 0x7fffffff);
      s[i] = s[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.place = 0;
  }

  // Return a number in [0, 1) of 24 bits.
  uniform() {
    if (this.place === 624) this.twist();
    let y = this.state[this.place++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    y ^= y >>> 18;
    return (y & 0xffffff) / 2 ** 24;
  }

  // Return normal numbers by Box-Muller in blocks of 16; if they are no whole blocks, the last 16 are drawn again.
  normal(count) {
    const drawn = Float32Array.from({ length: count }, () => this.uniform());
    for (let i = 0; i + 16 <= count; i += 16) boxMuller(drawn.subarray(i, i + 16));
    if (count % 16) {
      const last = drawn.subarray(count - 16);
      for (let i = 0; i < 16; i++) last[i] = this.uniform();
      boxMuller(last);
    }
    return drawn;
  }
}

// Turn 16 uniform numbers into normal ones: the two halves are a radius and an angle.
function boxMuller(block) {
  for (let i = 0; i < 8; i++) {
    const radius = Math.sqrt(-2 * Math.log(1 - block[i]));
    const angle = 2 * Math.PI * block[i + 8];
    block[i] = radius * Math.cos(angle);
    block[i + 8] = radius * Math.sin(angle);
  }
}

// Return the noise of all images, one source for each.
function noiseOf(sources, size) {
  const noise = new Float32Array(sources.length * size);
  sources.forEach((source, i) => noise.set(source.normal(size), i * size));
  return noise;
}

// Draw the images of some seeds and classes. `network(x, time, labels)` returns the output of the network; `show(x0,
// done)` is awaited after each step, and ends the drawing if it returns false. Return the images, or null.
async function draw(network, drawing, seeds, labels, show) {
  const size = drawing.shape.reduce((a, b) => a * b, 1);
  const sources = seeds.map((seed) => new Twister(seed));
  const before = [], remembered = Math.max(...drawing.steps.map((step) => step.x0.length));
  let x = noiseOf(sources, size);
  for (const [done, step] of drawing.steps.entries()) {
    let output = await network(x, step.time, labels);
    if (step.guided && drawing.guidance !== 1) {
      const poor = await network(x, step.time, labels.map(() => -1));
      output = output.map((good, i) => poor[i] + drawing.guidance * (good - poor[i]));
    }
    const [ofX, ofOutput] = step.image;
    const x0 = output.map((value, i) => ofX * x[i] + ofOutput * value);
    if (drawing.clip) x0.forEach((value, i) => (x0[i] = Math.max(-1, Math.min(1, value))));
    before.unshift(x0);
    before.length = Math.min(before.length, remembered);
    const noise = step.noise === null ? null : noiseOf(sources, size);
    x = x.map((value, i) => {
      let sum = step.x * value;
      for (let k = 0; k < step.x0.length; k++) sum += step.x0[k] * before[k][i];
      return noise ? sum + step.noise * noise[i] : sum;
    });
    if ((await show(x0, done + 1)) === false) return null;
  }
  return x;
}
