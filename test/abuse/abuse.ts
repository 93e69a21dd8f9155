import t from 'tap'
import { attacks } from './attacks.ts'
import { runTable } from './table.ts'

/**
 * The whole table twice: first each attack for 10 s from 1 and from 500 connections, then for a shorter
 * time, which shows whether the first run has left something behind.
 */
const run = (seconds: number) =>
  Object.keys(attacks).flatMap(attack =>
    [1, 500].map(connections => ({ attack, connections, seconds })),
  )

t.test('no attack on the webhook harms honest reviews, in two runs of the table', t =>
  runTable(t, [run(10), run(2)]),
)
