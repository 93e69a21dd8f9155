import t from 'tap'
import { type ControlPlane, startControlPlane } from '../../sandbox/control-plane.ts'

let starting: Promise<ControlPlane> | undefined

/** The control plane that the tests of this process share. The first one that needs it starts it. */
export function sharedControlPlane(): Promise<ControlPlane> {
  starting ??= startControlPlane().then(plane => {
    t.teardown(() => plane.stop())
    return plane
  })
  return starting
}
