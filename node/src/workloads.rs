// SPDX-License-Identifier: Apache-2.0
//! Removes the pods and tasks of a node before its containerd stops, so that shims end in order.

use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    DeleteTaskRequest, KillRequest, ListNamespacesRequest, ListTasksRequest,
};
use containerd_client::tonic::{Request, Status, transport::Channel};
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{ListPodSandboxRequest, RemovePodSandboxRequest, StopPodSandboxRequest};

use crate::node::{Node, NodeError};

/// Stops and removes every pod, then kills and deletes the tasks that are in no pod.
pub(crate) async fn remove_all(node: &Node) -> Result<(), NodeError> {
    let channel = node.channel().await?;
    remove_pods(channel.clone()).await.map_err(call("remove the pods"))?;
    kill_tasks(channel).await.map_err(call("kill the tasks"))
}

async fn remove_pods(channel: Channel) -> Result<(), Status> {
    let mut cri = RuntimeServiceClient::new(channel);
    let pods = cri.list_pod_sandbox(ListPodSandboxRequest { filter: None }).await?.into_inner().items;
    for pod in pods {
        cri.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod.id.clone() }).await?;
        cri.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: pod.id }).await?;
    }
    Ok(())
}

async fn kill_tasks(channel: Channel) -> Result<(), Status> {
    let mut tasks = TasksClient::new(channel.clone());
    let listed = NamespacesClient::new(channel).list(ListNamespacesRequest::default()).await?;
    for namespace in listed.into_inner().namespaces {
        let in_namespace = |container_id: String| (container_id, namespace.name.clone());
        let list = scoped(ListTasksRequest::default(), &namespace.name)?;
        for task in tasks.list(list).await?.into_inner().tasks {
            let (container_id, namespace) = in_namespace(task.id);
            let kill = KillRequest {
                container_id: container_id.clone(),
                signal: libc::SIGKILL.cast_unsigned(),
                all: true,
                ..Default::default()
            };
            if let Err(status) = tasks.kill(scoped(kill, &namespace)?).await {
                // It may have ended since the listing; deleting it tells.
                tracing::debug!("kill {container_id}: {}", status.message());
            }
            let wait = containerd_client::services::v1::WaitRequest {
                container_id: container_id.clone(),
                ..Default::default()
            };
            tasks.wait(scoped(wait, &namespace)?).await?;
            tasks.delete(scoped(DeleteTaskRequest { container_id }, &namespace)?).await?;
        }
    }
    Ok(())
}

/// A request in a containerd namespace.
pub(crate) fn scoped<T>(message: T, namespace: &str) -> Result<Request<T>, Status> {
    let mut request = Request::new(message);
    let value = namespace
        .parse()
        .map_err(|_| Status::invalid_argument(format!("namespace {namespace:?} is not a header value")))?;
    request.metadata_mut().insert("containerd-namespace", value);
    Ok(request)
}

fn call(operation: &'static str) -> impl FnOnce(Status) -> NodeError {
    move |source| NodeError::Call { operation, source: Box::new(source) }
}
