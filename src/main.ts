#!/usr/bin/env node
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import type { KubeConfig } from '@kubernetes/client-node'
import { Command, CommanderError } from 'commander'
import { pino } from 'pino'
import { Registry } from 'prom-client'
import { cleanUpOnce } from './commands/clean-up.ts'
import { removeWebhook } from './commands/remove-webhook.ts'
import { selftest } from './commands/selftest.ts'
import { type Config, ConfigError, readConfig } from './config/config.ts'
import { framesOf } from './failure.ts'
import { createKubernetesClient, type KubernetesClient } from './kubernetes/client.ts'
import { loadKubeConfig } from './kubernetes/kube-config.ts'
import { createLeaseStore } from './kubernetes/lease.ts'
import { isNamespaceName } from './names.ts'
import { environmentSettings } from './part-settings.ts'
import { createApp, createParts } from './service.ts'

const program = new Command('pullpass')
  .description('Lets the pods of opted-in namespaces pull from a Bluemix Dedicated registry')
  .exitOverride()

program
  .command('serve')
  .description('answer admission reviews and manage the pull secrets')
  .requiredOption('--config <file>', 'settings (YAML)')
  .action(({ config }: { config: string }) => serve(readSettings(config)))

program
  .command('clean-up')
  .description('revoke the tokens and delete the Secrets of namespaces that are not opted in')
  .requiredOption('--config <file>', 'settings (YAML)')
  .option('--cluster <name>', 'a former clusterName: revoke what was minted under it')
  .action(({ config, cluster }: { config: string; cluster?: string }) =>
    cleanUp(readSettings(config), cluster),
  )

program
  .command('selftest')
  .description('create a dry-run pod and check that it gets the reference')
  .requiredOption('--namespace <name>', 'an opted-in namespace')
  .requiredOption('--image <reference>', 'an image of the registry; it need not exist')
  .option('--secret <name>', 'name of the pull secret', 'pullpass-registry')
  .action(async ({ namespace, image, secret }) =>
    console.log(await selftest({ client: createClient() }, { namespace, image, secret })),
  )

program
  .command('remove-webhook')
  .description('delete the webhook configuration: the API server then sends no pods to pullpass')
  .requiredOption('--name <name>', 'name of the MutatingWebhookConfiguration')
  .action(async ({ name }) =>
    console.log(await removeWebhook({ client: createClient() }, { name })),
  )

/** Runs until SIGTERM or SIGINT. */
async function serve(config: Config): Promise<void> {
  const { kubeConfig, logger, identity } = readProcess(config)
  const app = createApp({ kubeConfig, logger }, { config, identity })
  const signalled = new Promise(resolve => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, resolve)
  })
  process.on('unhandledRejection', error => {
    logger.error({ at: framesOf(error) }, 'unhandled rejection')
  })
  await Promise.race([app.start(), signalled])
  await signalled
  await app.stop()
  logger.info('stopped')
}

async function cleanUp(config: Config, formerName: string | undefined): Promise<void> {
  if (formerName !== undefined && !isNamespaceName(formerName)) {
    throw new ConfigError(['--cluster: must be a name as in clusterName'])
  }
  const { kubeConfig, logger, identity } = readProcess(config)
  const { client, watches, index, store, issuer, notes, clock, rules } = createParts(
    { kubeConfig, logger, metrics: new Registry() },
    { config, identity, standalone: true },
  )
  const { namespace, timeoutMs } = config.kubernetes
  const { read } = createLeaseStore(
    { client },
    { namespace, name: config.leader.leaseName, limitMs: timeoutMs },
  )
  let count = 0
  const done = (what: string) => {
    count += 1
    console.log(what)
  }
  await cleanUpOnce(
    { client, watches, index, store, issuer, lease: { read, notes }, clock, logger },
    {
      rules,
      clusterName: config.clusterName,
      formerName,
      environment: cluster => environmentSettings(config, cluster),
    },
    { done, waits: console.log },
  )
  if (count === 0) console.log('nothing to clean up')
}

/** What this process has beside its settings. */
function readProcess(config: Config) {
  return {
    kubeConfig: readKubeConfig(config.kubernetes.kubeconfig),
    logger: pino({ level: config.log.level, base: null }),
    identity: `${hostname()}_${randomUUID()}`,
  }
}

/** For commands without settings: by the service account in the cluster, else by $KUBECONFIG. */
function createClient(): KubernetesClient {
  return createKubernetesClient({ kubeConfig: readKubeConfig(undefined) }, { timeoutMs: 10_000 })
}

/** Drops the parser's message: it quotes the file, and so perhaps a token. */
function readKubeConfig(file: string | undefined): KubeConfig {
  try {
    return loadKubeConfig(file, process.env)
  } catch {
    throw new ConfigError([`cannot read the kubeconfig ${file ?? '(default)'}`])
  }
}

function readSettings(file: string): Config {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new ConfigError([`cannot read the file ${file}: ${code}`])
  }
  return readConfig(text, process.env)
}

/** 0 done, 1 failed, 2 unusable configuration or arguments. */
function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
  console.error(`pullpass: ${(error as Error).message}`)
  return error instanceof ConfigError ? 2 : 1
}

program.parseAsync().then(
  () => process.exit(0),
  error => process.exit(exitCodeOf(error)),
)
