/* SPDX-License-Identifier: Apache-2.0 */
/* What a search ranks by: as Sphinx does, but a title that holds the words of the question goes first. */
const wordsOf = (text) => text.toLowerCase().match(/[\w-]+/g) || [];
const STOP = new Set("a an the my is it i of to on in for do does did how what why this use".split(" "));

var Scorer = {
  score: ([docname, title, anchor, descr, score, filename, kind]) => {
    const query = new URLSearchParams(window.location.search).get("q") || "";
    const asked = [...new Set(wordsOf(query))];
    const known = new Set(wordsOf(title.includes(" > ") ? title.split(" > ").pop() : title));
    const weight = (word) => (STOP.has(word) ? 0.3 : 1);
    const sum = (words) => words.reduce((total, word) => total + weight(word), 0);
    const found = asked.filter((word) => known.has(word) || known.has(word + "s") || known.has(word.replace(/s$/, "")));
    const share = sum(found) / (sum(asked) || 1);
    const tight = sum(found) / (sum([...known]) || 1);
    const last = docname.startsWith("generated/") || docname === "changelog" ? 0.5 : 1;
    return (score + 80 * share * share + 10 * share * tight) * last;
  },
  objNameMatch: 30,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
