/* The settings of the service itself, apart from the environment it serves. */
import { Type } from 'typebox'
import {
  address,
  certificateName,
  choice,
  SECONDS,
  section,
  TIMEOUTS,
  text,
  whole,
} from './grammar.ts'

/** A port to listen on. */
const PORTS = [1, 65_535] as const

export const admission = section({
  address: address('Address the webhook listens on.', '::'),
  port: whole(PORTS, 'Port the webhook listens on.', 8443),
  waitMs: whole([0, 10_000], 'Longest wait of a new pod for a Secret that is not there yet.', 2000),
})

export const operations = section({
  address: address('Address of probes and metrics.', '::'),
  port: whole(PORTS, 'Port of probes and metrics.', 8081),
})

export const certificate = section({
  mode: choice(
    ['self-managed', 'files'],
    'Who makes the serving certificate: pullpass, or someone else.',
  ),
  directory: Type.Optional(
    text(
      'path',
      'Folder with `tls.crt` and `tls.key`, perhaps `ca.crt`. Needed for `mode: files`.',
    ),
  ),
  names: Type.Array(certificateName(), {
    expected: 'a list of DNS names or IP addresses',
    description:
      'Names by which the API server calls the webhook. Required for `mode: self-managed`; checked in `mode: files`.',
    default: [],
  }),
  secretName: text('subdomain', 'Secret of the CA, in `kubernetes.namespace`.', 'pullpass-ca'),
  webhookConfiguration: text(
    'subdomain',
    'MutatingWebhookConfiguration whose `caBundle` is kept.',
    'pullpass',
  ),
  leafSeconds: whole([5, SECONDS[1]], 'Life of a serving certificate.', 604_800),
  caSeconds: whole(
    [20, SECONDS[1]],
    'Life of a CA. At least four times `leafSeconds`.',
    31_536_000,
  ),
})

export const kubernetes = section({
  kubeconfig: Type.Optional(
    text(
      'path',
      'Kubeconfig file. Where left out: in the cluster its own account, else the usual places.',
    ),
  ),
  namespace: text('label', 'Namespace pullpass itself runs in.', 'pullpass'),
  timeoutMs: whole(TIMEOUTS, 'Longest wait for one answer of the API server.', 10_000),
})

export const leader = section({
  leaseName: text('subdomain', 'Name of the Lease.', 'pullpass'),
  leaseSeconds: whole([2, 3600], 'How long a silent leader stays leader.', 15),
  renewSeconds: whole(
    [1, 1200],
    'How often the leader renews. At most a third of `leaseSeconds`.',
    5,
  ),
})

export const shutdown = section({
  drainMs: whole([0, 120_000], 'How long calls are still answered after SIGTERM.', 5000),
})

export const log = section({
  level: choice(
    ['info', 'fatal', 'error', 'warn', 'debug', 'trace'],
    'Least important line logged.',
  ),
})
