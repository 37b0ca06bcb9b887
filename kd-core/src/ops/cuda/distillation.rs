//! Losses against labels and a teacher, a row a warp or a block.

use candle_core::{Result, Tensor};

use super::attach::attach1;
use super::launch::{Geometry, Launch};
use super::output::{Output, device_of};

/// The parts that are asked for, `(parts, rows)`, labels before teacher, as [`crate::ops::distillation`] has them. The
/// labels stay on the device: the loss of a row with a label that is no class is NaN.
pub(crate) fn distillation(
    student: &Tensor,
    teacher: Option<&Tensor>,
    labels: Option<&Tensor>,
    temperature: f64,
) -> Result<Tensor> {
    let student = student.contiguous()?;
    let (rows, classes) = student.dims2()?;
    let teacher = teacher.map(|teacher| teacher.detach().contiguous()).transpose()?;
    let labels = labels.map(|labels| labels.to_device(student.device())?.contiguous()).transpose()?;
    let geometry = Geometry::of_rows(rows, classes, 1024, 1024);
    let parts = usize::from(teacher.is_some()) + usize::from(labels.is_some());
    let mut y = Output::new((parts, rows), student.dtype(), device_of(&student)?)?;
    let launch = Launch::new(device_of(&student)?, "distillation", student.dtype())?.tensor(&student)?;
    let launch = launch.maybe(teacher.as_ref())?.maybe(labels.as_ref())?.output(&mut y)?;
    launch.long(rows).int(classes)?.double(temperature).run(geometry)?;
    attach1("distillation", &student, y, move |student, _, d_parts| {
        let mut d_student = Output::like(student)?;
        let launch = Launch::new(device_of(student)?, "distillation_backward", student.dtype())?.tensor(student)?;
        let launch = launch.maybe(teacher.as_ref())?.maybe(labels.as_ref())?.tensor(d_parts)?.output(&mut d_student)?;
        launch.long(rows).int(classes)?.double(temperature).run(geometry)?;
        Ok(Some(d_student.into_tensor()))
    })
}
