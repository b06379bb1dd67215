"""What is changed in the residual stream: functions of arrays that build `models.residual.Edits` and run no loop."""
