import type { BluemixSettings } from './bluemix/bluemix-issuer.ts'
import type { Config } from './config/config.ts'
import type { EnvironmentSettings } from './controller/environment.ts'
import type { ControllerSettings } from './controller/loop.ts'
import type { PullSecretRules } from './pull-secret/pull-secret.ts'

/* The settings of each part, from the configuration. */

export function pullSecretRules({ pullSecret, registry }: Config): PullSecretRules {
  return { secretName: pullSecret.name, registryHost: registry.host, email: pullSecret.email }
}

export function bluemixSettings({ bluemix, registry }: Config): BluemixSettings {
  const { api, login, iam, account, credentialsDirectory, caFile, timeoutMs } = bluemix
  return {
    api,
    login,
    iam,
    account,
    credentialsDirectory,
    caFile,
    timeoutMs,
    registryUrl: registry.url,
    registryHost: registry.host,
  }
}

/** `cluster`: the name of the cluster in the descriptions of its tokens. */
export function environmentSettings(
  { bluemix, controller }: Config,
  cluster: string,
): EnvironmentSettings {
  const { mintsPerMinute, listEverySeconds } = controller
  return { cluster, organizations: bluemix, mintsPerMinute, listEveryMs: listEverySeconds * 1000 }
}

export function controllerSettings(config: Config, cluster: string): ControllerSettings {
  const { controller, bluemix, leader } = config
  const { concurrency, rotateAfterSeconds } = controller
  return {
    cluster,
    rules: pullSecretRules(config),
    organizations: bluemix,
    concurrency,
    rotateAfterMs: rotateAfterSeconds && rotateAfterSeconds * 1000,
    rotateGraceMs: controller.rotateGraceSeconds * 1000,
    revokeGraceMs: controller.revokeGraceSeconds * 1000,
    verifyEveryMs: controller.verifyEverySeconds * 1000,
    listEveryMs: controller.listEverySeconds * 1000,
    listAgainMs: leader.leaseSeconds * 1000,
    resyncMs: 15_000,
  }
}
