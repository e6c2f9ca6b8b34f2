// SPDX-License-Identifier: Apache-2.0
//! skeleton
use super::builder::ReadyBuilder;
use super::judgement::Interruption;
use super::node_side::NodeSide;
use shakedown_report::Finding;
pub(super) struct Survey;
pub(super) async fn survey(_n: &NodeSide) -> Result<Survey, Interruption> {
    Ok(Survey)
}
pub(super) async fn since(
    _b: &Survey,
    _n: &NodeSide,
    _builder: &ReadyBuilder,
) -> Result<Vec<Finding>, Interruption> {
    Ok(vec![])
}
