// Prepare a picture as timm and Pillow do: resize its shorter side, crop the center, normalize.

const PRECISION = 22; // bits after the point of Pillow's weights for 8-bit images

const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(1 - Math.abs(x), 0) },
  bicubic: {
    support: 2,
    weight: (x) => {
      const a = -0.5;
      const t = Math.abs(x);
      if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
      return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
    },
  },
};

/** The weights of the pixels that make each pixel of a resized line, as Pillow rounds them. */
function weightsOf(length, target, filter) {
  const scale = length / target;
  const stretch = Math.max(scale, 1);
  const support = filter.support * stretch;
  const all = [];
  for (let place = 0; place < target; place++) {
    const center = (place + 0.5) * scale;
    const first = Math.max(Math.trunc(center - support + 0.5), 0);
    const last = Math.min(Math.trunc(center + support + 0.5), length);
    const weights = [];
    for (let at = first; at < last; at++) {
      weights.push(filter.weight((at - center + 0.5) / stretch));
    }
    const sum = weights.reduce((a, b) => a + b, 0);
    const exact = weights.map((w) => (w / sum) * 2 ** PRECISION);
    all.push({ first, weights: exact.map((w) => Math.trunc(w < 0 ? w - 0.5 : w + 0.5)) });
  }
  return all;
}

/** Resize lines of pixels; strides say where the pixels of a line, and the lines, lie. */
function resizeLines(source, lines, lineStride, length, pixelStride, target, targetStrides, filter) {
  const out = new Uint8ClampedArray(lines * target);
  const all = weightsOf(length, target, filter);
  for (let line = 0; line < lines; line++) {
    for (let place = 0; place < target; place++) {
      const { first, weights } = all[place];
      let sum = 2 ** (PRECISION - 1);
      for (let k = 0; k < weights.length; k++) {
        sum += source[line * lineStride + (first + k) * pixelStride] * weights[k];
      }
      const value = Math.floor(sum / 2 ** PRECISION);
      out[line * targetStrides.line + place * targetStrides.pixel] = value;
    }
  }
  return out;
}

/** A channel of an image, resized: rows first, then columns. */
function resize(channel, width, height, newWidth, newHeight, filter) {
  if (width !== newWidth) {
    const strides = { line: newWidth, pixel: 1 };
    channel = resizeLines(channel, height, width, width, 1, newWidth, strides, filter);
  }
  if (height !== newHeight) {
    const strides = { line: 1, pixel: newWidth };
    channel = resizeLines(channel, newWidth, 1, height, newWidth, newHeight, strides, filter);
  }
  return channel;
}

/** The channels of a bitmap: red, green and blue, or grey as Pillow mixes it. */
async function channelsOf(file, count) {
  const bitmap = await createImageBitmap(file, {
    colorSpaceConversion: "none",
    premultiplyAlpha: "none",
  });
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const channels = Array.from({ length: count }, () => new Uint8ClampedArray(width * height));
  for (let i = 0; i < width * height; i++) {
    const [red, green, blue] = data.subarray(4 * i, 4 * i + 3);
    if (count === 3) {
      channels[0][i] = red;
      channels[1][i] = green;
      channels[2][i] = blue;
    } else {
      channels[0][i] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
    }
  }
  return { channels, width, height };
}

/** Python's round: halves go to the even neighbour. */
function roundHalfEven(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** A picture as the network wants it: Float32Array of channels × crop × crop. */
export async function prepare(file, network) {
  const { channels, width, height } = await channelsOf(file, network.channels);
  const { crop } = network;
  let newWidth = network.resize;
  let newHeight = network.resize;
  if (width < height) newHeight = Math.trunc((network.resize * height) / width);
  else newWidth = Math.trunc((network.resize * width) / height);
  const filter = FILTERS[network.interpolation];
  const left = roundHalfEven((newWidth - crop) / 2);
  const top = roundHalfEven((newHeight - crop) / 2);
  const values = new Float32Array(channels.length * crop * crop);
  channels.forEach((channel, c) => {
    const resized = resize(channel, width, height, newWidth, newHeight, filter);
    for (let y = 0; y < crop; y++) {
      for (let x = 0; x < crop; x++) {
        const pixel = resized[(top + y) * newWidth + left + x] / 255;
        values[(c * crop + y) * crop + x] = (pixel - network.mean[c]) / network.std[c];
      }
    }
  });
  return values;
}
