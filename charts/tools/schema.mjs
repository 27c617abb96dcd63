// Finishes values.schema.json. The generator knows a value's type, description and default; this
// adds what `## @schema <path> <JSON Schema>` lines of values.yaml say, and closes every object.
// Usage: node schema.mjs values.yaml base.json > values.schema.json
import { readFileSync } from "node:fs";

const [valuesPath, basePath] = process.argv.slice(2);
const lines = readFileSync(valuesPath, "utf8").split("\n");
const base = JSON.parse(readFileSync(basePath, "utf8"));

/** The schema of the value at a dotted path; objects on the way are made when they are missing. */
function parentOf(root, path) {
  const keys = path.split(".");
  const last = keys.pop();
  let node = root;
  for (const key of keys) {
    node.properties ??= {};
    node = node.properties[key] ??= { type: "object" };
  }
  node.properties ??= {};
  return [node.properties, last];
}

/** Descriptions by path, for values the generator leaves out of its schema (maps). */
function descriptions() {
  const found = new Map();
  for (const line of lines) {
    const match = line.match(/^## @param (\S+)\s+(?:\[.*?\]\s+)?(.+)$/);
    if (match) found.set(match[1], match[2]);
  }
  return found;
}

function applySchemaLines(root) {
  const said = descriptions();
  for (const line of lines) {
    const match = line.match(/^## @schema (\S+) (.+)$/);
    if (!match) continue;
    const [, path, json] = match;
    const [properties, key] = parentOf(root, path);
    const { description, default: initial } = properties[key] ?? {};
    properties[key] = {
      ...(said.has(path) ? { description: said.get(path) } : description ? { description } : {}),
      ...(initial !== undefined ? { default: initial } : {}),
      ...JSON.parse(json),
    };
  }
}

/** No object may be open by accident: a typing error in a values file must not pass in silence. */
function close(node, path) {
  if (Array.isArray(node)) return node.forEach((item, i) => close(item, `${path}[${i}]`));
  if (node === null || typeof node !== "object") return;
  if (node.nullable) {
    delete node.nullable;
    node.type = [node.type, "null"];
  }
  if (node.type === "object" && node.additionalProperties === undefined) {
    if (!node.properties) throw new Error(`${path}: a map: say with "## @schema ${path} …" what it holds`);
    node.additionalProperties = false;
  }
  if (node.type === "array" && (!node.items || Object.keys(node.items).length === 0)) {
    throw new Error(`${path}: a list: say with "## @schema ${path} …" what it holds`);
  }
  for (const [key, child] of Object.entries(node.properties ?? {})) close(child, path ? `${path}.${key}` : key);
  for (const key of ["items", "additionalProperties", "oneOf"]) close(node[key], path);
}

applySchemaLines(base);
// Parent charts share `global` with all their subcharts, so it is the one object that stays open;
// its own key keeps its type.
base.properties.global.properties = { imageRegistry: { type: "string", default: "" } };
close(base, "");
const { title, type, properties, additionalProperties } = base;
const schema = { $schema: "http://json-schema.org/draft-07/schema#", title, type, additionalProperties, properties };
process.stdout.write(`${JSON.stringify(schema, null, 2)}\n`);
