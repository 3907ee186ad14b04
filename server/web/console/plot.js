/** Small charts out of SVG: columns, each with what it stands for, also for those who listen. */

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 340;
const HEIGHT = 90;

/** @param {string} tag @param {Record<string, string|number>} attributes @param {(Node|string)[]} children */
function draw(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/**
 * Where columns stand, in a field of a width and a height.
 * @param {number[]} values none is negative
 * @param {number} width
 * @param {number} height
 * @returns {{x: number, y: number, width: number, height: number}[]}
 */
export function columns(values, width, height) {
  const top = Math.max(...values, 1);
  const step = width / Math.max(values.length, 7);
  return values.map((value, index) => {
    const tall = value > 0 ? Math.max(1, (value / top) * height) : 0;
    return { x: index * step, y: height - tall, width: step * 0.8, height: tall };
  });
}

/** @param {string} title @param {{label: string, value: number, about: string}[]} points */
export function chart(title, points) {
  const places = columns(points.map(({ value }) => value), WIDTH, HEIGHT);
  const bars = points.map(({ about }, index) => {
    const { x, y, width, height } = places[index];
    return draw("rect", { x, y, width, height, rx: 1.5 }, draw("title", {}, about));
  });
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "img", "aria-label": `${title}. ${points.map(({ about }) => about).join("; ")}` }, ...bars);
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  const top = Math.max(...points.map(({ value }) => value));
  caption.append(`${title}, ${points[0].label} to ${points.at(-1)?.label}; at most ${top.toLocaleString()}`);
  figure.append(caption, svg);
  return figure;
}
