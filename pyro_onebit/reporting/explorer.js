"use strict";
// What stands on the page, of families as Python computed it, of a Gaussian by hand as computed here; a test holds the
// latter against Python's.
const LN2 = Math.log(2), HALF_LOG_2PI = 0.5 * Math.log(2 * Math.PI);
const logSigmoid = t => t < 0 ? t - Math.log1p(Math.exp(t)) : -Math.log1p(Math.exp(-t));

// q(z|x=1) = N(mean, sd^2), q(z|x=0) its mirror image, under the best decoder: each dimension's log-odds are q's, which
// are linear in z. By symmetry one codeword stands for both. All integrals are sums over an even grid, which for such
// smooth integrands is exact to rounding once it resolves the decoder's cliff.
function byHand(n, mean, sd) {
  const slope = 2 * mean / (sd * sd);
  const logQ = z => -0.5 * ((z - mean) / sd) ** 2 - Math.log(sd) - HALF_LOG_2PI;
  const logJoint = z => n * logSigmoid(slope * z) - 0.5 * z * z - HALF_LOG_2PI;
  const reach = Math.max(10, mean + 12 * sd), count = Math.ceil(2 * reach / Math.min(0.02, sd / 12, slope ? 0.6 / slope : 1));
  const step = 2 * reach / count, grid = Float64Array.from({ length: count + 1 }, (_, i) => -reach + i * step);
  let surprise = 0, evidence = 0;
  for (const z of grid) {
    surprise -= step * Math.exp(logQ(z)) * logSigmoid(slope * z);
    evidence += step * Math.exp(logJoint(z));
  }
  const recon = n * surprise, kl = 0.5 * (mean * mean + sd * sd - 1) - Math.log(sd), logEvidence = Math.log(evidence);
  return { loss: recon + kl, recon, log_evidence: logEvidence, mutual_information: LN2 - surprise,
    density: z => Math.exp(logQ(z)), posterior: z => Math.exp(logJoint(z) - logEvidence) };
}

const at = id => document.getElementById(id);
const shown = value => value.toFixed(4).replace(/^-(0\.0*)$/, "$1");
const NAMES = { gaussian: "The best Gaussian", mixture: "A mixture of three Gaussians", two_layer: "A guide of two layers",
  truncated: "A truncated Gaussian", hand: "This Gaussian" };

function chosen() {
  const { n, families } = CONTENT.data[at("n").value], family = at("family").value;
  if (family !== "hand") return { n, family, ...families[family] };
  const own = byHand(n, Number(at("mean").value), Number(at("sd").value));
  const z = Array.from({ length: 401 }, (_, i) => -4 + 0.02 * i);
  return { n, family, ...own, z, q: [z.map(v => own.density(-v)), z.map(own.density)], p: [z.map(v => own.posterior(-v)), z.map(own.posterior)] };
}

function draw() {
  const now = chosen(), hand = now.family === "hand", k = hand ? 0 : Number(at("k").value);
  document.querySelectorAll(".hand").forEach(part => part.hidden = !hand);
  document.querySelectorAll(".family").forEach(part => part.hidden = hand);
  at("n-is").value = now.n; at("k-is").value = CONTENT.particles[k];
  at("mean-is").value = at("mean").value; at("sd-is").value = at("sd").value;
  const away = now.loss + now.log_evidence, model = -now.log_evidence - LN2;
  at("story").textContent = `${NAMES[now.family]} at n = ${now.n}: a datum costs ${shown(now.loss)} nats. ${shown(LN2)} are the bit; ` +
    `${shown(away)} were spent on the latent and do not come back, because q(z|x) is not the posterior; ` +
    `${shown(model)} the model gives up. The latent carries ${shown(now.mutual_information)} nats of the bit` +
    (k ? `, and with K = ${CONTENT.particles[k]} draws the bound on log p(x) is ${shown(now.bounds[k])}.` : ".");
  const rows = [["loss, −ELBO", now.loss], ["reconstruction", now.recon], ["KL to the prior", now.loss - now.recon],
    ["−log p(x)", -now.log_evidence], ["I(x; z)", now.mutual_information], ...(hand ? [] : [[`−IWAE, K = ${CONTENT.particles[k]}`, -now.bounds[k]]])];
  at("figures").replaceChildren(...rows.map(([name, value]) => {
    const row = document.createElement("tr"), head = document.createElement("th"), cell = document.createElement("td");
    head.scope = "row"; head.textContent = name; cell.textContent = value.toFixed(6).replace(/^-(0\.0*)$/, "$1");
    cell.dataset.value = value; row.append(head, cell);
    return row;
  }));
  const settings = { displayModeBar: false, responsive: true };
  const layout = { margin: { t: 10, r: 10, b: 40, l: 50 }, legend: { orientation: "h", y: -0.25 }, font: { size: 13 }, autosize: true };
  const [zero, one] = CONTENT.colours;
  const line = (y, name, style) => ({ x: now.z, y, name, mode: "lines", hovertemplate: "%{y:.4f}", ...style });
  const prior = now.z.map(v => Math.exp(-0.5 * v * v - HALF_LOG_2PI));
  Plotly.react("densities", [
    line(prior, "prior", { fill: "tozeroy", line: { width: 0 }, fillcolor: "#eee" }),
    line(now.q[0], "q(z|x=0)", { fill: "tozeroy", line: { color: zero, width: 2.5 } }),
    line(now.q[1], "q(z|x=1)", { fill: "tozeroy", line: { color: one, width: 2.5 } }),
    ...now.p.map((y, i) => line(y, "exact p(z|x)", { showlegend: !i, line: { color: "#111", dash: "dot", width: 1.5 } })),
  ], { ...layout, xaxis: { title: { text: now.family === "two_layer" ? "z2" : "z" }, range: [-4, 4] }, yaxis: { title: { text: "density" }, rangemode: "tozero" } }, settings);
  const bar = (value, name, color, pattern) => ({ x: [Math.max(value, 0)], y: [""], name, type: "bar", orientation: "h",
    marker: { color, pattern: { shape: pattern, fillmode: "overlay", fgcolor: "#333", size: 8 } }, hovertemplate: "%{x:.6f}" });
  Plotly.react("nats", [bar(LN2, "the bit", "#888", ""), bar(away, "does not come back", "#d55e00", "/"), bar(model, "given up by the model", "#f0e442", "x")],
    { ...layout, barmode: "stack", legend: { orientation: "h", y: -0.35, traceorder: "normal" }, margin: { ...layout.margin, l: 10, b: 60 },
      xaxis: { ticksuffix: " nats", nticks: 6, range: [0, Math.max(1.6, 1.05 * now.loss)] } }, settings);
}

at("n").max = CONTENT.data.length - 1;
at("k").max = CONTENT.particles.length - 1;
document.querySelector("form").addEventListener("input", draw);
document.querySelector("form").addEventListener("submit", event => event.preventDefault());
draw();
