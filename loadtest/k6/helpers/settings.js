// What the environment may change besides the target. Everything is checked before the first request.

import { sleep } from 'k6';

const TIME_SCALE = above('TIME_SCALE', 1, 0);
const VU_SCALE = above('VU_SCALE', 1, 0);

/** The number that the variable `name` holds, or `usual` where it is not set. */
function number(name, usual) {
  const text = __ENV[name];
  if (text === undefined || text === '') {
    return usual;
  }
  const value = Number(text);
  if (!Number.isFinite(value)) {
    throw new Error(`${name}=${text} is no number: write for example ${name}=${usual}`);
  }
  return value;
}

function above(name, usual, least) {
  const value = number(name, usual);
  if (value <= least) {
    throw new Error(`${name}=${value} must be above ${least}: write for example ${name}=${usual}`);
  }
  return value;
}

/** A limit of a threshold, which the variable `name` may replace. */
export function limit(name, usual) {
  return above(name, usual, 0);
}

/** The duration of a stage; TIME_SCALE makes all of a test shorter or longer. */
export function seconds(count) {
  return milliseconds(count, 1);
}

/** The duration of a test without stages, for which k6 takes no less than a second. */
export function lasting(count) {
  return milliseconds(count, 1000);
}

function milliseconds(count, least) {
  return `${Math.max(least, Math.round(count * TIME_SCALE * 1000))}ms`;
}

/** Virtual users; VU_SCALE makes more or fewer, but never none of some. */
export function users(count) {
  return count === 0 ? 0 : Math.max(1, Math.round(count * VU_SCALE));
}

/** Waits as a person would between two requests: at random between so many seconds. */
export function think(least, most) {
  sleep((least + Math.random() * (most - least)) * TIME_SCALE);
}

/** Tells this test's series from those of the others in one database; TEST_ID names a run. */
export function tags(test) {
  return { testid: __ENV.TEST_ID || test };
}
