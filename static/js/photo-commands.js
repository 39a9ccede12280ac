// Writes the commands that repeat the analysis of a photo outside the page. Pure.

import { chosenParameters } from './detection-parameters.js';

/** What the user replaces by a key. The key itself is never shown. */
const KEY_PLACEHOLDER = 'YOUR_API_KEY';

/**
 * @typedef {object} PhotoRequest
 * @property {string} url address of the request, with its query
 * @property {string} fileName
 * @property {string} mediaType such as `image/jpeg`; empty: not known
 * @property {boolean} needsKey whether the server requires an API key
 */

/**
 * Return the address that analyses an image. It is relative to the page, so it also works below a proxy's path prefix.
 * @param {string} pageUrl URL of the page
 * @param {object} settings settings of the page; only parameters that the user has set are in the address
 * @param {string[]} classes labels of the classes to detect; empty: all
 * @returns {string}
 */
export function predictUrl(pageUrl, settings, classes) {
  const url = new URL(`${settings.version}/predict`, pageUrl);
  url.search = url.hash = '';
  for (const [name, value] of Object.entries(chosenParameters(settings))) url.searchParams.set(name, String(Number(value)));
  for (const label of classes) url.searchParams.append('classes', label);
  if (!settings.keep) url.searchParams.set('collect', '0');
  return url.href;
}

/** @param {PhotoRequest} request @returns {string} a command for a POSIX shell */
export function curlCommand({ url, fileName, needsKey }) {
  const lines = [
    'curl',
    ...(needsKey ? [`-H 'Authorization: Bearer ${KEY_PLACEHOLDER}'`] : []),
    `--data-binary ${shellQuote(`@${fileName}`)}`,
    shellQuote(url),
  ];
  return lines.join(' \\\n  ');
}

/** @param {PhotoRequest} request @returns {string} a program that needs nothing but Python */
export function pythonProgram({ url, fileName, mediaType, needsKey }) {
  const headers = [`"Content-Type": ${pythonString(mediaType || 'application/octet-stream')}`];
  if (needsKey) headers.push(`"Authorization": "Bearer ${KEY_PLACEHOLDER}"`);
  return [
    'import json',
    'import urllib.request',
    '',
    `url = ${pythonString(url)}`,
    `headers = {${headers.join(', ')}}`,
    `with open(${pythonString(fileName)}, "rb") as file:`,
    '    request = urllib.request.Request(url, data=file.read(), headers=headers)',
    'with urllib.request.urlopen(request) as response:',
    '    answer = json.load(response)',
    'for found in answer["detections"]:',
    '    print(found["label"], found["score"], found["box"])',
  ].join('\n');
}

function shellQuote(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** JSON strings are valid Python strings. */
function pythonString(text) {
  return JSON.stringify(text);
}
