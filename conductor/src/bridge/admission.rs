//! What an attempt of a step needs before it may begin: a claim of the arbiter and leases of models.

use std::pin::pin;

use arbitration::{Arbiter, ClaimError, ClaimSpec, Grant, OwnerId};
use futures_util::FutureExt as _;
use pit_core::priority::Priority;
use pool_manager::{AllocateError, Holder, ModelId, PoolManager};

use super::Expiring;
use crate::melody::{Lease, PlanStep};
use crate::pit::Pit;

/// A step was refused what it claims or leases.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The plan names a resource that the arbiter does not have.
    #[error("there is no resource `{0}`")]
    UnknownResource(String),
    /// The plan names a model that is not declared.
    #[error("there is no model `{0}`")]
    UnknownModel(String),
    /// The plan names an extension that was not started.
    #[error("there is no extension `{0}`")]
    UnknownExtension(String),
    /// The claim can never be granted.
    #[error("the claim was refused")]
    Claim(#[from] ClaimError),
    /// The lease was refused.
    #[error("the lease was refused")]
    Lease(#[from] AllocateError),
}

/// One process runs one melody, so that there is one owner of claims.
const RUN: OwnerId = OwnerId::new(1);

/// What each attempt of one step needs before it may begin.
#[derive(Clone, Debug)]
pub struct Admission {
    arbiter: Arbiter,
    pools: PoolManager,
    expiring: Expiring,
    holder: Holder,
    priority: Priority,
    claim: ClaimSpec,
    models: Vec<ModelId>,
}

/// What an attempt holds; given back when it is dropped.
#[derive(Debug)]
pub struct Admitted {
    _grant: Grant,
    _leases: Vec<pool_manager::Lease>,
}

impl Admission {
    /// What `step` needs, in the name of the run that `holder` stands for, as urgently as the step says, or else as
    /// `priority` does.
    ///
    /// # Errors
    ///
    /// [`AdmissionError::UnknownResource`], [`AdmissionError::UnknownModel`].
    pub fn of_step(
        pit: &Pit,
        holder: &Holder,
        step: &PlanStep,
        priority: Priority,
    ) -> Result<Self, AdmissionError> {
        let priority = step.priority.map_or(priority, Priority::new);
        let mut claim = ClaimSpec::new(RUN, priority);
        for wanted in &step.claims {
            let resource = pit.arbiter.resource(&wanted.resource);
            let resource =
                resource.ok_or_else(|| AdmissionError::UnknownResource(wanted.resource.clone()))?;
            claim = claim.with(resource, wanted.amount);
        }
        let model = |lease: &Lease| {
            let name = lease.to_string();
            pit.pools.find(&name).ok_or(AdmissionError::UnknownModel(name))
        };
        let mut models = step.leases.iter().map(model).collect::<Result<Vec<_>, _>>()?;
        // INVARIANT: every step leases in one order, so that no two wait for what the other one holds.
        models.sort_unstable();
        let (arbiter, pools, expiring) = (pit.arbiter.clone(), pit.pools.clone(), pit.expiring.clone());
        Ok(Self { arbiter, pools, expiring, holder: holder.clone(), priority, claim, models })
    }

    /// Waits for everything: first what many share (cores), then the scarce models, in the one order that all
    /// steps keep. Whoever holds a model holds its cores already and waits only for models that come later, so that
    /// two steps never wait for each other. (A step names a model once: the check of a melody sees to it.)
    ///
    /// # Errors
    ///
    /// [`AdmissionError`]: waiting longer would not help.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future withdraws the claim and gives back what was granted.
    pub async fn admit(&self) -> Result<Admitted, AdmissionError> {
        let grant = self.arbiter.claim(&self.claim).await?;
        let mut leases = Vec::with_capacity(self.models.len());
        for model in &self.models {
            let request =
                pool_manager::Request::new(*model).held_by(&self.holder).with_priority(self.priority);
            let mut lease = pin!(self.pools.allocate_async(request));
            let lease = match lease.as_mut().now_or_never() {
                Some(lease) => lease?,
                None => {
                    self.expiring.look_again();
                    lease.await?
                }
            };
            leases.push(lease);
        }
        Ok(Admitted { _grant: grant, _leases: leases })
    }
}
