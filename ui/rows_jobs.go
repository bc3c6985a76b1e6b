package ui

import "tagalong.org/tagalong/app/api"

// job is the bar of long work; false when it has ended well and there is nothing to tell.
func (m *index) job(j *api.Job) (progress, bool) {
	if v := j.Verification; j.Done && v != nil && len(v.Findings) > 0 {
		return verified(v), true
	}
	if j.Done && j.Error == nil || j.ID == m.st.Offline.Job {
		return progress{}, false // a preparation has a place of its own
	}
	if j.Kind == "suspend" || j.Kind == "resume" {
		return m.memoryJob(j)
	}
	going, failed := jobTitles(j)
	p := progress{Title: going}
	if j.Error != nil {
		p.Title, p.Part = failed, -2
		p.Detail = j.Error.Error()
		return p, j.Error.Code != api.CodeCancelled
	}
	p.Part, p.Detail = flow(j.Bytes, j.Total, j.Rate, j.ETA)
	p.Cancel = button{Act: act{Verb: verbDrop, ID: j.ID}, Label: t("button.cancel"), Enabled: m.up && !m.asked[j.ID]}
	return p, true
}

// memoryJob is the bar of a memory that is saved or loaded. That of a switch has its own, and whoever asked for it reads how it failed.
func (m *index) memoryJob(j *api.Job) (progress, bool) {
	for i := range m.st.VMs {
		if vm := &m.st.VMs[i]; vm.ID == j.VM && m.switchBar(vm) != nil {
			return progress{}, false
		}
	}
	p := progress{Title: t("job.resume.going", "VM", j.VMName)}
	if j.Kind == "suspend" {
		p.Title = t("job.suspend.going", "VM", j.VMName)
	}
	p.Part, p.Detail = flow(j.Bytes, j.Total, j.Rate, j.ETA)
	p.Cancel = button{Act: act{Verb: verbDrop, ID: j.ID}, Label: t("button.cancel"), Enabled: m.up && !m.asked[j.ID]}
	return p, j.Error == nil
}

// jobTitles says what a job does, and what it could not do.
func jobTitles(j *api.Job) (going, failed string) {
	switch j.Kind {
	case "export":
		return t("job.export.going", "VM", j.VMName), t("job.export.failed", "VM", j.VMName)
	case "check":
		return t("job.check.going", "VM", j.VMName), t("job.check.failed", "VM", j.VMName)
	case "seed":
		return t("job.seed.going", "VM", j.VMName), t("job.seed.failed", "VM", j.VMName)
	case "verify":
		return t("job.verify.going", "VM", j.VMName), t("job.verify.failed", "VM", j.VMName)
	case "add disk":
		return t("job.add-disk.going", "VM", j.VMName), t("job.add-disk.failed", "VM", j.VMName)
	case "resolve":
		if j.Phase == "heeding" {
			return t("job.resolve.heeding", "VM", j.VMName), t("job.resolve.failed", "VM", j.VMName)
		}
		return t("job.resolve.going", "VM", j.VMName), t("job.resolve.failed", "VM", j.VMName)
	case "offline":
		return t("offline.preparing"), t("job.offline.failed")
	default:
		return t("job.create.going", "VM", j.VMName), t("job.create.failed", "VM", j.VMName)
	}
}
