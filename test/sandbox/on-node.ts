import { enterOwnNetwork, obstacleToNode } from '../../sandbox/node/own-network.ts'

/**
 * Prepares a test file that starts a real node: call it first. Where there can be none, the file is
 * skipped, and the reason is shown.
 */
export async function onNode(): Promise<void> {
  const obstacle = obstacleToNode()
  if (obstacle !== undefined) {
    console.log(`1..0 # SKIP ${obstacle}`)
    process.exit(0)
  }
  await enterOwnNetwork()
}
