import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import { installBeside, releaseNamespace } from '../../sandbox/install.ts'
import { onFreePorts } from '../../sandbox/ports.ts'
import { type RunningProcess, startProcess } from '../../sandbox/processes.ts'
import { startTestbed, type Testbed } from '../../sandbox/testbed.ts'
import { type Cluster, reachCluster } from '../e2e/cluster.ts'
import { type Container, containerOf } from './container.ts'

export interface ServingImage {
  cluster: Cluster
  process: RunningProcess
  /** Time from the start of the process, with mounts, until /livez and /readyz were ok. */
  listeningMs: number
  readyMs: number
}

interface Place extends Pick<Testbed, 'controlPlane' | 'environment'> {
  ports: { webhook: number; operations: number }
}

const serviceAccount = '/var/run/secrets/kubernetes.io/serviceaccount'

/** Starts a cluster, an environment and the image, as in a pod; stops them at the end of `t`. */
export async function serveImage(
  t: Test,
  container: Pick<Container, 'image' | 'folder'>,
): Promise<ServingImage> {
  const testbed = await startTestbed({
    registry: false,
    controllerManager: false,
    pullpass: undefined,
    progress: () => {},
  })
  t.teardown(testbed.stop)
  const { controlPlane, environment } = testbed
  const cluster = reachCluster(controlPlane, () => {})
  t.teardown(cluster.close)
  const ports = await onFreePorts(async (webhook, operations) => ({ webhook, operations }))
  await installBeside(controlPlane, {
    domain: environment.domain,
    webhookUrl: `https://127.0.0.1:${ports.webhook}/mutate`,
    failurePolicy: 'Fail',
  })
  const mounted = await mountedIn({ controlPlane, environment, ports })
  const program = await containerOf({ ...container, ...mounted })
  const begun = performance.now()
  const process = await startProcess(program)
  t.teardown(async () => process.stop())
  const passed = async (path: string) => {
    while (!(await isOk(`http://127.0.0.1:${ports.operations}${path}`))) {
      if (!process.running()) throw new Error(`the image's program ended:\n${process.output()}`)
      await sleep(10)
    }
    return performance.now() - begun
  }
  const listeningMs = await passed('/livez')
  return { cluster, process, listeningMs, readyMs: await passed('/readyz') }
}

/** The settings of the container in the Deployment of the chart. */
async function mountedIn({
  controlPlane,
  environment,
  ports,
}: Place): Promise<Pick<Container, 'files' | 'env'>> {
  const settings = {
    domain: environment.domain,
    bluemix: { organization: 'acme', caFile: '/etc/pullpass/environment-ca/ca.crt' },
    admission: { address: '127.0.0.1', port: ports.webhook },
    operations: { address: '127.0.0.1', port: ports.operations },
    certificate: { names: ['127.0.0.1'] },
    shutdown: { drainMs: 0 },
  }
  return {
    files: {
      '/etc/pullpass/config/config.yaml': JSON.stringify(settings),
      '/etc/pullpass/credentials/api-key': environment.apiKey,
      '/etc/pullpass/environment-ca/ca.crt': environment.ca,
      [`${serviceAccount}/token`]: await controlPlane.token(releaseNamespace, 'pullpass'),
      [`${serviceAccount}/ca.crt`]: controlPlane.ca,
      [`${serviceAccount}/namespace`]: releaseNamespace,
    },
    env: {
      KUBERNETES_SERVICE_HOST: '127.0.0.1',
      KUBERNETES_SERVICE_PORT: String(controlPlane.apiserverPort),
      HTTPS_PROXY: environment.gateway,
    },
  }
}

async function isOk(url: string): Promise<boolean> {
  return fetch(url).then(
    ({ ok }) => ok,
    () => false,
  )
}
